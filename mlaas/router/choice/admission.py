"""The bounded queue in front of each local model.

vLLM takes any number of requests and lets them wait inside, where nobody can order them or turn them away. So a model
is sent no more than `per_replica` requests for each live replica; the others wait here, by priority and fair among
tenants, and a line that is too long or too slow is refused with the time after which a place is likely.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mlaas.providers.base import Failure, FailureKind, ProviderFailed
from mlaas.router.choice.rate import Rate
from mlaas.router.choice.waiting_line import WaitingLine
from mlaas.router.config import AdmissionConfig

_LEAST_RETRY_S = 1.0
_MOST_RETRY_S = 60.0

_Ticket = asyncio.Future[None]


class Admission:
    """Places at local models. All of it runs in one event loop.

    Args:
        config: the bounds.
    """

    def __init__(self, config: AdmissionConfig) -> None:
        self._config = config
        self._lines: dict[str, WaitingLine[_Ticket]] = {}
        self._departures: dict[str, Rate] = {}

    def configure(self, config: AdmissionConfig) -> None:
        """Take over new bounds; who waits goes on waiting."""
        self._config = config

    def num_queued(self, model: str) -> int:
        """Return how many requests wait for a model."""
        line = self._lines.get(model)
        return line.num_waiting if line is not None else 0

    def num_taken(self, model: str) -> int:
        """Return how many requests have a place at a model."""
        line = self._lines.get(model)
        return line.num_taken if line is not None else 0

    def resize(self, model: str, *, num_replicas: int) -> None:
        """Let as many in as the live replicas of a model take."""
        line = self._lines.get(model)
        if line is not None:
            line.capacity = num_replicas * self._config.per_replica
            self._call_in(line)

    @asynccontextmanager
    async def place(
        self, model: str, *, num_replicas: int, priority: int = 0, tenant: str = ""
    ) -> AsyncIterator[float]:
        """Hold a place at a model, and wait for it first if need be; gives the seconds waited.

        Args:
            model: name of the local model.
            num_replicas: its live replicas.
            priority: of the key; greater goes first.
            tenant: whose request it is.

        Raises:
            ProviderFailed: too many wait, or none has left in time; `retry_after_s` tells when a place is likely.
        """
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = WaitingLine()
        line.capacity = num_replicas * self._config.per_replica
        waited_s = 0.0 if line.try_take() else await self._wait(model, line, priority, tenant)
        try:
            yield waited_s
        finally:
            line.leave()
            self._departures.setdefault(model, Rate()).count(now_s=time.monotonic())
            self._call_in(line)
            if not line.num_taken and not line.num_waiting and self._lines.get(model) is line:
                del self._lines[model]

    async def _wait(self, model: str, line: WaitingLine[_Ticket], priority: int, tenant: str) -> float:
        if line.num_waiting >= self._config.max_queue:
            raise ProviderFailed(self._refuse(model, 429, "queue_full", f"{line.num_waiting:,} requests wait for it"))
        began_s = time.monotonic()
        ticket: _Ticket = asyncio.get_running_loop().create_future()
        line.wait(ticket, priority=priority, tenant=tenant)
        self._call_in(line)
        try:
            async with asyncio.timeout(self._config.max_wait_s):
                await ticket
        except BaseException as error:
            # Gone, or out of time; perhaps in the very moment in which its turn came.
            if not line.drop(ticket):
                line.leave()
                self._call_in(line)
            if isinstance(error, TimeoutError):
                why = f"no place came free in {self._config.max_wait_s:g} s"
                raise ProviderFailed(self._refuse(model, 503, "queue_timeout", why)) from error
            raise
        return time.monotonic() - began_s

    def _call_in(self, line: WaitingLine[_Ticket]) -> None:
        for ticket in line.admit():
            if not ticket.done():
                ticket.set_result(None)

    def _refuse(self, model: str, status: int, code: str, why: str) -> Failure:
        """Return the refusal; the wait is predicted from how many are ahead and how many left of late."""
        rate = self._departures.get(model)
        per_s = rate.per_s(now_s=time.monotonic()) if rate is not None else 0.0
        ahead = self.num_queued(model) + 1
        retry_s = min(max(ahead / per_s if per_s else _MOST_RETRY_S, _LEAST_RETRY_S), _MOST_RETRY_S)
        return Failure(
            kind=FailureKind.OVERLOADED,
            status=status,
            code=code,
            message=f"model {model!r} is busy: {why}; a place is likely in {retry_s:.0f} s",
            type="rate_limit_error" if status == 429 else "service_unavailable_error",
            retry_after_s=retry_s,
        )
