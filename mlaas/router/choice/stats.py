"""How fast each address has answered lately: exact quantiles over a short, bounded window.

The last 64 answers of the last minute are kept for each address and sorted when someone asks, at most four times a
second. That costs a request less than a microsecond, needs no decay to be tuned, forgets by itself, and a figure can be
checked by hand; estimators such as P2 or a t-digest save memory that is not scarce here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from mlaas.router.types import Pace

WINDOW_S = 60.0
"""An address whose last answer is older counts as not measured."""
_MAX_SAMPLES = 64
_MAX_ADDRESSES = 1024
_FRESH_S = 0.25
_LEAST_S = 1e-4


class _Sample(NamedTuple):
    at_s: float
    ttft_s: float | None
    tokens_per_s: float | None
    duration_s: float


class _Window:
    __slots__ = ("is_stale", "made_at_s", "pace", "samples")

    def __init__(self) -> None:
        self.samples: deque[_Sample] = deque(maxlen=_MAX_SAMPLES)
        self.pace: Pace | None = None
        self.made_at_s = 0.0
        self.is_stale = False


class Paces:
    """The pace of each address; the least recently used are forgotten beyond 1,024."""

    def __init__(self) -> None:
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def observe(
        self, address: str, *, ttft_s: float | None, duration_s: float, output_tokens: int, now_s: float
    ) -> None:
        """Take one answer that came to its end.

        Args:
            address: who answered.
            ttft_s: time to the first token; None when the answer was not streamed.
            duration_s: time to the last one.
            output_tokens: length of the answer.
            now_s: monotonic clock.
        """
        window = self._windows.get(address)
        if window is None:
            window = self._windows[address] = _Window()
            if len(self._windows) > _MAX_ADDRESSES:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(address)
        streaming_s = duration_s - (ttft_s or 0.0)
        num_timed = output_tokens - (ttft_s is not None)
        speed = num_timed / streaming_s if num_timed > 0 and streaming_s > _LEAST_S else None
        window.samples.append(_Sample(now_s, ttft_s, speed, duration_s))
        window.is_stale = True

    def pace(self, address: str, *, now_s: float) -> Pace | None:
        """Return an address's pace; None when there is no answer of the last minute."""
        window = self._windows.get(address)
        if window is None or now_s - window.samples[-1].at_s > WINDOW_S:
            return None
        if window.pace is None or (window.is_stale and now_s - window.made_at_s >= _FRESH_S):
            window.pace = _measure([each for each in window.samples if now_s - each.at_s <= WINDOW_S])
            window.made_at_s = now_s
            window.is_stale = False
        return window.pace

    def forget(self, address: str) -> None:
        """Drop an address that has gone."""
        self._windows.pop(address, None)


def _measure(samples: list[_Sample]) -> Pace:
    ttfts = sorted(each.ttft_s for each in samples if each.ttft_s is not None)
    speeds = sorted(each.tokens_per_s for each in samples if each.tokens_per_s is not None)
    return Pace(
        num_seen=len(samples),
        ttft_p50_s=_quantile(ttfts, 0.5),
        ttft_p95_s=_quantile(ttfts, 0.95),
        ttft_idle_s=_quantile(ttfts, 0.1),
        tokens_per_s=_quantile(speeds, 0.5),
        duration_s=sum(each.duration_s for each in samples) / len(samples),
    )


def _quantile(values: list[float], q: float) -> float:
    """Return the nearest-rank quantile of sorted values; 0 of none."""
    return values[min(len(values) - 1, int(q * len(values)))] if values else 0.0
