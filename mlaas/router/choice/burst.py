"""Overflow: when an alias's traffic may go to its burst targets, and when it comes home again.

What authorises a request to a burst target is load or a cold start, and nothing else:

- **load**: the least busy home address is over `max_queue` waiting requests or over `ttft_s` of predicted time to the
  first token. While the burst lasts the bar lies lower, at `return_ratio` of the limits: the home takes a request
  whenever it is below, so it never idles while others are paid, and the burst ends by itself once the home has been
  below for `hold_s`.
- **cold start**: no home address can be tried and a home model is deployed without a live replica.

A timeout, an error or an open breaker at home is neither, so it authorises nothing. A target that the alias lists under
`targets` and not under `burst` is authorised by that: a plain failover alias may name paid targets in its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlaas.router.choice.predict import num_running, num_waiting, predicted_ttft_s
from mlaas.router.types import NO_BURST, BurstLimits, BurstState, Candidate, Readiness, Slo

_CAN_TRY = (Readiness.READY, Readiness.PROBE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pressure:
    """How close a home is to its limits.

    Attributes:
        ratio: the largest part of a limit that is used; over 1 it is broken.
        what: the figure and the limit behind it.
    """

    ratio: float
    what: str


CALM = Pressure(ratio=0.0, what="no load")


def pressure(candidates: Sequence[Candidate], limits: BurstLimits, slo: Slo | None) -> Pressure:
    """Return the pressure at the least pressed home address that can be tried; calm when there is none."""
    each = [_pressure(one, limits, slo) for one in candidates if one.readiness in _CAN_TRY]
    return min(each, key=lambda one: one.ratio, default=CALM)


def step(state: BurstState, ratio: float, limits: BurstLimits, *, now_s: float) -> BurstState:
    """Return an alias's state after a look at the pressure on its home.

    Args:
        state: before.
        ratio: part of the limits that is used.
        limits: the alias's.
        now_s: monotonic clock.
    """
    if ratio > 1:
        return BurstState(is_active=True)
    if not state.is_active:
        return NO_BURST
    if ratio > limits.return_ratio:
        return BurstState(is_active=True)
    calm_since_s = now_s if state.calm_since_s is None else state.calm_since_s
    if now_s - calm_since_s >= limits.hold_s:
        return NO_BURST
    return BurstState(is_active=True, calm_since_s=calm_since_s)


def is_over(state: BurstState, ratio: float, limits: BurstLimits) -> bool:
    """Return whether the next request overflows."""
    return ratio > (limits.return_ratio if state.is_active else 1.0)


def _pressure(candidate: Candidate, limits: BurstLimits, slo: Slo | None) -> Pressure:
    """Return the pressure at one address; where no engine tells its queue, what is under way there stands for it."""
    most = CALM
    if limits.max_queue is not None:
        queue = num_waiting(candidate)
        what = "waiting"
        if candidate.engine is None:
            queue, what = queue + candidate.num_outstanding, "under way"
        ratio = queue / limits.max_queue if limits.max_queue else float(queue) * 2
        most = Pressure(ratio=ratio, what=_compare(f"{queue:,} {what}", queue > limits.max_queue, limits.max_queue))
    limit_s = limits.ttft_s if limits.ttft_s is not None else slo.ttft_s if slo is not None else None
    # An idle address is tried whatever it was like before: else a bad memory would keep it idle.
    if limit_s is not None and (num_running(candidate) or num_waiting(candidate)):
        ttft_s = predicted_ttft_s(candidate)
        if ttft_s is not None and ttft_s / limit_s > most.ratio:
            what = _compare(f"first token in {ttft_s:.2f} s", ttft_s > limit_s, limit_s)
            most = Pressure(ratio=ttft_s / limit_s, what=f"{what} s")
    return most


def _compare(figure: str, is_more: bool, limit: float) -> str:
    return f"{figure} {'>' if is_more else '<='} {limit:g}"
