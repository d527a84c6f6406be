"""Carries out on the cluster what the store knows already.

Effects of one lease run one after another, those of different leases side by side. An effect that the cluster does
not answer stays due and is repeated; each may be done twice.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from mlaas.errors import MlaasError, PlacementError
from mlaas.scheduler.live.entries import Order
from mlaas.scheduler.live.lifecycle import Effect, GaveBack, NotPlaced, Started, State
from mlaas.scheduler.live.types import Outcome, lease_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlaas.scheduler.live.entries import Lease, Live
    from mlaas.scheduler.live.ports import ClusterPort
    from mlaas.scheduler.live.roster import Roster
    from mlaas.scheduler.requests.spec import Command

FIRST_REFUSAL_S = 0.5
"""Wait after the cluster has refused a placement; it doubles with each refusal in a row."""
MOST_REFUSAL_S = 30.0

logger = logging.getLogger(__name__)


class Executor:
    """Effects under way."""

    def __init__(self, cluster: ClusterPort, roster: Roster, wake: Callable[[], None]) -> None:
        self._cluster = cluster
        self._roster = roster
        self._wake = wake
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: list[Order] = []
        self._failing: set[tuple[str, Effect]] = set()
        """Said once, however often it is repeated."""

    def carry_out(self, orders: Sequence[Order]) -> None:
        """Start effects, each after the earlier ones of its lease."""
        for order in orders:
            task = asyncio.ensure_future(self._run(order))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def repeat(self) -> None:
        """Try again what the cluster did not answer."""
        again, self._again = self._again, []
        self.carry_out(again)

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _run(self, order: Order) -> None:
        lock = self._locks.setdefault(order.lease_id, asyncio.Lock())
        try:
            async with lock:
                await self._do(order)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a task: one effect must not end the service
            self._repeat_later(order, error)
        else:
            self._failing.discard((order.lease_id, order.effect))
            if order.effect is Effect.END:
                self._locks.pop(order.lease_id, None)
            self._wake()

    def _repeat_later(self, order: Order, error: Exception) -> None:
        self._again.append(order)
        if (order.lease_id, order.effect) not in self._failing:
            self._failing.add((order.lease_id, order.effect))
            code = error.code if isinstance(error, MlaasError) else type(error).__name__
            logger.warning("%s of lease %s is repeated: %s: %s", order.effect, order.lease_id, code, error)

    async def _do(self, order: Order) -> None:
        live, lease_id = order.live, order.lease_id
        if live is None:
            await self._remove(lease_id, has_command=True)
            return
        match order.effect:
            case Effect.START:
                await self._start(live, lease_id)
            case Effect.ASK_TO_YIELD:
                await self._ask_to_yield(live, lease_id)
            case Effect.DROP_GROUP:
                await self._cluster.remove_group(lease_id)
            case Effect.END:
                await self._remove(lease_id, has_command=live.spec.command is not None)
                if (lease := _lease(live, lease_id)) is not None:
                    await self._remove_own_groups(live, lease)
                    self._roster.release(live)

    async def _start(self, live: Live, lease_id: str) -> None:
        lease = _lease(live, lease_id)
        if lease is None or lease.is_started or not live.state.holds_gang:
            return
        if live.state is State.YIELDING:
            self._roster.take(live, GaveBack(Outcome.YIELDED, "it had not started"))
            return
        try:
            await self._cluster.make_group(lease_id, live.spec.gang, lease.placement)
            if (command := _command(live)) is not None:
                await self._cluster.start_command(
                    lease_id, command, live.spec.gang, lease.placement, kind=live.spec.kind
                )
        except PlacementError as error:
            if _holds(live, lease_id):
                live.refusals += 1
                wait_s = min(FIRST_REFUSAL_S * 2.0 ** min(live.refusals - 1, 10), MOST_REFUSAL_S)
                self._roster.take(live, NotPlaced(error.message, wait_s))
            return
        if _holds(live, lease_id):
            self._roster.begin(live, begun_s=self._roster.clock.monotonic_s())
            self._roster.take(live, Started())

    async def _ask_to_yield(self, live: Live, lease_id: str) -> None:
        is_due = live.state is State.YIELDING and _holds(live, lease_id)
        # A driver that holds its gang is told by its watch; SIGTERM would end it before its workers have checkpointed.
        if is_due and live.spec.command is not None and live.record.holder is None:
            await self._cluster.stop_command(lease_id, force=False)

    async def _remove(self, lease_id: str, *, has_command: bool) -> None:
        if has_command:
            await self._cluster.stop_command(lease_id, force=True)
        await self._cluster.remove_group(lease_id)
        if has_command:
            await self._cluster.forget_command(lease_id)

    async def _remove_own_groups(self, live: Live, lease: Lease) -> None:
        """Remove what the holder has made on the nodes that it had; not where its job holds another gang."""
        if (job := live.record.handed_over_job) is None:
            return
        others = (each for each in self._roster.leased.values() if each.record.handed_over_job == job)
        kept = {node for each in others if each is not live and each.lease for node, _ in each.lease.placement.workers}
        if nodes := {node for node, _ in lease.placement.workers} - kept:
            await self._cluster.remove_own_groups(job, nodes)


def _lease(live: Live, lease_id: str) -> Lease | None:
    """Return what the workload holds, if it is this lease."""
    return live.lease if live.lease is not None and live.lease.id == lease_id else None


def _holds(live: Live, lease_id: str) -> bool:
    """Whether this is the lease of the workload's present attempt, and has not ended."""
    return live.state.holds_gang and lease_id_of(live.id, live.record.attempt) == lease_id


def _command(live: Live) -> Command | None:
    """Return what is started for a workload, with its place in an array."""
    command, index = live.spec.command, live.record.array_index
    if command is None or index is None:
        return command
    return replace(command, environment=(*command.environment, ("MLAAS_ARRAY_INDEX", str(index))))
