"""Asks the engine of each live local replica how busy it is, over the Prometheus metrics that vLLM serves.

Source: vLLM, v1/metrics/loggers.py (names of the gauges); Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

import asyncio
import time

import aiohttp

from mlaas.router.choice.fleet import Fleet
from mlaas.router.types import EngineLoad

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
_KV_USAGE = "vllm:kv_cache_usage_perc"
_GAUGES = (_RUNNING, _WAITING, _KV_USAGE)


def parse_load(text: bytes) -> EngineLoad | None:
    """Return what an engine's metrics say; None when they are no vLLM engine's.

    A replica with several engines (data parallel) counts as one: requests are added up, and the fullest cache counts.

    Args:
        text: Prometheus text format.
    """
    values: dict[str, list[float]] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        if not line.startswith("vllm:"):
            continue
        name, value = _parse_sample(line)
        if name in _GAUGES and value == value:  # not NaN
            values.setdefault(name, []).append(value)
    if _RUNNING not in values or _WAITING not in values:
        return None
    return EngineLoad(
        num_running=int(sum(values[_RUNNING])),
        num_waiting=int(sum(values[_WAITING])),
        kv_usage=min(1.0, max(values.get(_KV_USAGE, [0.0]))),
    )


class EnginePoller:
    """Keeps the fleet's knowledge of engines fresh; who does not answer is forgotten in seconds.

    Args:
        fleet: knows the live replicas, and takes what they say.
        session: the connections.
    """

    def __init__(self, fleet: Fleet, session: aiohttp.ClientSession) -> None:
        self._fleet = fleet
        self._session = session

    async def poll(self) -> None:
        """Ask all replicas once, at the same time. One that fails to answer hinders nobody."""
        origins = [origin for group in self._fleet.engines().values() for origin in group]
        loads = await asyncio.gather(*(self._ask(origin) for origin in origins))
        now_s = time.monotonic()
        for origin, load in zip(origins, loads, strict=True):
            if load is not None:
                self._fleet.replace_engine(origin, load, now_s=now_s)

    async def _ask(self, origin: str) -> EngineLoad | None:
        url = f"{origin.removesuffix('/v1')}/metrics"
        headers = self._fleet.authorization(origin)
        try:
            async with self._session.get(url, headers=headers, timeout=_TIMEOUT, allow_redirects=False) as answer:
                return parse_load(await answer.read()) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None


def _parse_sample(line: str) -> tuple[str, float]:
    """Return the name and value of one sample; NaN for a value that is none. Label values may hold any character."""
    end = line.rfind("}")
    name, rest = (line[: line.find("{")], line[end + 1 :]) if end >= 0 else line.partition(" ")[::2]
    try:
        return name, float(rest.split()[0])
    except (ValueError, IndexError):
        return name, float("nan")
