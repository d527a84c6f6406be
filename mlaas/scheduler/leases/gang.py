"""A gang as its holder sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlaas.errors import Conflict, NotFound, PlatformError
from mlaas.scheduler.leases.hold import GIVE_BACK_TIMEOUT_S, Hold, persist
from mlaas.scheduler.live.types import Outcome, Signal

if TYPE_CHECKING:
    from mlaas.scheduler.leases.verbs import HolderVerbs
    from mlaas.scheduler.live.types import Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class YieldSignal:
    """A request to checkpoint and to give the gang back."""

    deadline_s: float
    """On this process's monotonic clock: when the gang is taken."""
    new_size: int | None
    """Number of workers to go on with at once; None: the holder waits for its next turn."""
    reason: str

    @property
    def within_s(self) -> float:
        """Seconds left."""
        return max(0.0, self.deadline_s - time.monotonic())


class Gang:
    """A gang that this process holds; made by `holder.lease`."""

    def __init__(self, verbs: HolderVerbs, ticket: Ticket, *, is_command: bool, wait: Callable[[str], Ticket]) -> None:
        """Hold what a ticket grants.

        Args:
            verbs: the scheduler.
            ticket: of a gang that is placed.
            is_command: whether the scheduler has started this process, and starts it again at its next turn.
            wait: waits for the next turn of a workload.
        """
        self._verbs = verbs
        self._is_command = is_command
        self._wait = wait
        self._hold: Hold | None = None
        self._take(ticket)

    @property
    def workload_id(self) -> str:
        """The workload that this process is, to the scheduler."""
        return self._ticket.workload_id

    @property
    def attempt(self) -> int:
        """How often it has been placed; above 1, a checkpoint of an earlier attempt may be there."""
        return self._ticket.attempt

    @property
    def num_workers(self) -> int:
        """Size of the gang at present."""
        return self._placement.num_workers

    @property
    def placement_group(self) -> Any:
        """Ray's placement group of the gang, a bundle for each worker; gone after `hand_over`."""
        return self._verbs.placement_group(self._ticket.group_name or "")

    @property
    def is_lost(self) -> bool:
        """Whether it is another's by now: a node is gone, the workload was cancelled, or a deadline missed."""
        return self._hold is None or self._hold.signal.signal is Signal.OVER

    def node_ids(self) -> tuple[str, ...]:
        """Return the Ray node of each worker."""
        return tuple(node for node, count in self._placement.workers for _ in range(count))

    def yield_signal(self) -> YieldSignal | None:
        """Return the request to checkpoint and give back, also where it is too late for that; None: go on."""
        if self._hold is None or self._hold.signal.signal is Signal.GO_ON:
            return None
        signal = self._hold.signal
        return YieldSignal(deadline_s=self._hold.deadline_s, new_size=signal.num_workers, reason=signal.reason)

    def hand_over(self) -> None:
        """Have the placement group removed and the nodes kept, for those who make groups of their own on them.

        A lease that is over is seen by `is_lost`. A scheduler that does not answer is waited for.
        """
        if self._hold is not None:
            lease_id, hold = self._hold.lease_id, self._hold
            try:
                persist(lambda: self._verbs.hand_over(lease_id), timeout_s=None)
            except Conflict as error:
                hold.end(reason=error.message)

    def report(self, *, done: float | None = None, left_s: float | None = None) -> None:
        """Say how far the run is: the part that is done, from 0 to 1, or the seconds left at the present size.

        It helps those who wait, and is no reason to stop: a scheduler that does not answer misses it.
        """
        if self._hold is None:
            return
        try:
            self._verbs.report(self._hold.lease_id, done=done, left_s=left_s)
        except (Conflict, NotFound, PlatformError):
            return

    def yield_and_wait(self) -> None:
        """Give the gang back, and wait for the next one, which may have another size; nothing may run in it any more.

        Raises:
            SystemExit: the scheduler has started this process, and starts it again at its next turn.
            Conflict: the workload has ended meanwhile: cancelled, or failed for good.
        """
        self.release(Outcome.YIELDED)
        if self._is_command:
            raise SystemExit(0)
        self._take(self._wait(self.workload_id))

    def release(self, outcome: Outcome, *, message: str = "") -> None:
        """End the lease, unless it is over. Safe to repeat.

        Raises:
            PlatformError: the scheduler does not answer for a minute; it takes the gang back by itself.
        """
        hold, self._hold = self._hold, None
        if hold is None:
            return
        hold.stop()
        if hold.signal.signal is not Signal.OVER:
            try:
                persist(
                    lambda: self._verbs.give_back(hold.lease_id, outcome, message=message),
                    timeout_s=GIVE_BACK_TIMEOUT_S,
                )
            except Conflict:
                return  # taken back at this very moment: that outcome counts

    def _take(self, ticket: Ticket) -> None:
        assert ticket.lease_id is not None
        assert ticket.placement is not None
        self._ticket, self._placement = ticket, ticket.placement
        self._hold = Hold(self._verbs, ticket.lease_id)
