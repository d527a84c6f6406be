"""The loop: look at the cluster, take in what has happened, decide, book, write, carry out."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from mlaas.errors import Conflict, PlatformError
from mlaas.observability.definitions import LEASES_LOST, STORE_ERRORS, YIELDS_IGNORED
from mlaas.observability.meters import Meters
from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.explanations.recording import Recorder
from mlaas.scheduler.live.booking import Booking
from mlaas.scheduler.live.entries import QUEUED
from mlaas.scheduler.live.executor import Executor
from mlaas.scheduler.live.lifecycle import DeadlinePassed, Effect, HolderDied, Lost, State
from mlaas.scheduler.live.retention import Retention
from mlaas.scheduler.live.sightings import Sighting, findings, leaks, outside_use
from mlaas.scheduler.live.types import HOLDER_TIMEOUT_S
from mlaas.scheduler.live.writer import Writer
from mlaas.scheduler.metrics import observe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.live.ports import ClusterPort, Observation
    from mlaas.scheduler.live.roster import Roster
    from mlaas.scheduler.types import Decision, Resources
    from mlaas.store.workloads import WorkloadRepository

TICK_S = 0.5
"""The cluster is looked at, and deadlines are checked, this often; all else happens at once."""
REVIEW_S = 5.0
"""A new decision is taken this often even if nothing has happened: ranks move with time, and protection ends."""
PROVE_S = 10.0
"""A scheduler with nothing to write writes nothing this often, to learn whether it still leads."""
MOST_RECORDED = 16
"""Decisions that are kept in memory with the world that they were taken in."""
STALL_S = HOLDER_TIMEOUT_S / 2.0
"""After a pause of this scheduler's own as long as this, silence of holders says nothing about them."""

logger = logging.getLogger(__name__)


class Loop:
    """Load, decide, apply."""

    def __init__(
        self, cluster: ClusterPort, store: WorkloadRepository, roster: Roster, policy: SchedulingPolicy
    ) -> None:
        self._cluster = cluster
        self._policy = policy
        self.roster = roster
        self.meters = Meters()
        self.recorder = Recorder(most=MOST_RECORDED)
        self._woken = asyncio.Event()
        self.executor = Executor(cluster, roster, self.wake)
        self.writer = Writer(store, roster, self.executor.carry_out)
        self.retention = Retention(roster, self.writer, store)
        self._booking = Booking(roster)
        self._sighting: Sighting | None = None
        self._last: Observation | None = None
        self._nodes: set[str] = set()
        self._outside: dict[str, Resources] = {}
        self._turned_s = roster.clock.monotonic_s()
        self._decided_s = self._proved_s = self._turned_s
        self._is_blind = True
        self._is_stopping = False

    def book(self, decision: Decision) -> None:
        """Book a decision of the same world that is not the cycle's; the next turn carries it out."""
        self.roster.advance()
        self._booking.book(decision)
        self.wake()

    def wake(self) -> None:
        """Take a turn soon."""
        self._woken.set()

    def stop(self) -> None:
        """End `run` after its present turn."""
        self._is_stopping = True
        self.wake()

    async def run(self, *, heal: Callable[[], Awaitable[None]]) -> None:
        """Turn until `stop`.

        Args:
            heal: Called once the store is back after a write that failed.

        Raises:
            Conflict: another scheduler leads.
        """
        beside = [asyncio.ensure_future(each) for each in (self._look_on(), self.retention.run())]
        try:
            while not self._is_stopping:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), TICK_S)
                self._woken.clear()
                await self.turn()
                if self.writer.has_gap and self.writer.is_up:
                    await self._heal(heal)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        await self.executor.settle()

    async def _heal(self, heal: Callable[[], Awaitable[None]]) -> None:
        try:
            await heal()
        except PlatformError as error:
            logger.warning("the store has gone again: %s", error)
        else:
            self.writer.has_gap = False

    async def look_first(self) -> Sighting:
        """Look at the cluster before the first turn, which takes in what is seen.

        Raises:
            PlatformError: it does not answer.
        """
        begun_s = self.roster.clock.monotonic_s()
        sighting = self._sighting = Sighting(await self._cluster.observe(), begun_s)
        self.see(sighting.observation)
        return sighting

    async def look(self) -> None:
        """Look at the cluster; the next turn takes in what is seen."""
        begun_s = self.roster.clock.monotonic_s()
        try:
            self._sighting = Sighting(await self._cluster.observe(), begun_s)
        except PlatformError as error:
            if not self._is_blind:
                logger.warning("the cluster does not answer; nothing new is placed: %s", error)
            self._is_blind = True

    async def turn(self) -> None:
        """Take in what has happened, decide, write and carry out.

        Raises:
            Conflict: another scheduler leads.
        """
        self.roster.advance()
        has_leaks = self._take_in()
        self._expire()
        if self.writer.is_up and not self._is_blind:
            self._decide()
            self._booking.begin_planned()
        was_up = self.writer.is_up
        is_due = self.roster.clock.monotonic_s() - self._proved_s >= PROVE_S
        try:
            await self.writer.commit(proves_leadership=has_leaks or is_due)
            self._proved_s = self.roster.clock.monotonic_s() if is_due else self._proved_s
        except PlatformError as error:
            self.meters.add(STORE_ERRORS)
            if was_up:
                logger.warning("nothing new is done on the cluster until the store is back: %s", error)
        self._raise_if_superseded()
        if self.roster.has_changed and self.writer.is_up and not self._is_blind:
            self.wake()

    def _raise_if_superseded(self) -> None:
        if self.writer.superseded is not None:
            raise Conflict(self.writer.superseded.code, self.writer.superseded.message)

    async def _look_on(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                # The outermost frame of a task: what cannot be seen is not decided on, and the next look may succeed.
                logger.exception("a look at the cluster failed; nothing new is placed")
                self._is_blind = True
            self.executor.repeat()
            self.wake()
            await asyncio.sleep(TICK_S)

    def _take_in(self) -> bool:
        """Take in the last look; True when something was found that belongs to nobody."""
        sighting, self._sighting = self._sighting, None
        if sighting is None:
            return False
        self.see(sighting.observation)
        return self._compare(sighting)

    def _compare(self, sighting: Sighting) -> bool:
        for live, event in findings(sighting, list(self.roster.leased.values())):
            if self.roster.take(live, event) and isinstance(event, Lost):
                self.meters.add(LEASES_LOST, ("lost",))
        for live in list(self.roster.planned.values()):
            if live.plan is not None and any(node not in self._nodes for node, _ in live.plan.placement.workers):
                self.roster.unplan(live)
        found = leaks(sighting, leased=self.roster.leased, released=self.roster.released)
        for lease_id in found:
            logger.warning("lease %s is nobody's; its group and command are removed", lease_id)
            self.roster.order(lease_id, Effect.END)
        while self.roster.released and next(iter(self.roster.released.values())) < sighting.begun_s:
            self.roster.released.popitem(last=False)
        return bool(found)

    def see(self, observation: Observation) -> None:
        """Bring the ledger in line with the nodes that are there, and with what others run on them."""
        ledger, roster = self.roster.ledger, self.roster
        outside = outside_use(self._last, observation, roster.leased.values())
        if self._last is None or observation.nodes != self._last.nodes:
            ledger.set_nodes(observation.nodes)
            roster.has_changed = True
        if outside != self._outside:
            ledger.occupy(outside)
            roster.has_changed = True
        roster.holdings.set_nodes(observation.nodes, outside)
        self._outside, self._last, self._is_blind = outside, observation, False
        self._nodes = {node.name for node in observation.nodes}

    def _expire(self) -> None:
        """Let deadlines, back-offs and silent holders have their effect."""
        now_s = self.roster.clock.monotonic_s()
        stalled = now_s - self._turned_s >= STALL_S
        self._turned_s = now_s
        for live in [live for live in self.roster.timed.values() if live.due_s is not None and live.due_s <= now_s]:
            if live.state is State.YIELDING:
                if self.roster.take(live, DeadlinePassed()):
                    self.meters.add(YIELDS_IGNORED)
            else:
                self.roster.queue(live)
                self.roster.note(live, QUEUED)
        for live in list(self.roster.attached.values()):
            if stalled:
                live.seen_s = now_s
            elif now_s - live.seen_s > HOLDER_TIMEOUT_S:
                event = HolderDied(f"its process died: it said nothing for {HOLDER_TIMEOUT_S:g} s")
                if self.roster.take(live, event):
                    self.meters.add(LEASES_LOST, ("holder-died",))

    def _decide(self) -> None:
        now_s = self.roster.clock.monotonic_s()
        if self.roster.has_changed or now_s - self._decided_s >= REVIEW_S:
            self.roster.has_changed = False
            self._decided_s = now_s
            snapshot = self.roster.ledger.snapshot()
            decision = decide(snapshot, self._policy)
            decision_s = self.roster.clock.monotonic_s() - now_s
            observe(self.meters, snapshot, decision, decision_s=decision_s, held_back=self._held_back())
            self.recorder.record(snapshot, decision, policy=self._policy.name)
            self._booking.book(decision)

    def _held_back(self) -> Counter[str]:
        """Workloads by queue that a dependency or a back-off keeps out of decisions."""
        queued = self.roster.ledger.pending.row_of
        return Counter(
            live.record.queue
            for live in self.roster.lives.values()
            if live.state is State.PENDING and live.id not in queued and live.id not in self.roster.planned
        )
