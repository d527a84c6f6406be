"""Turns a decision into bookings in the ledger and signals to what has to yield."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlaas.errors import PlacementError
from mlaas.scheduler.live.entries import QUEUED, Plan
from mlaas.scheduler.live.lifecycle import Placed, State, ToldToYield
from mlaas.scheduler.types import Grow, Move, Place, Preempt, Reserve, Shrink

if TYPE_CHECKING:
    from mlaas.scheduler.live.entries import Live
    from mlaas.scheduler.live.roster import Roster
    from mlaas.scheduler.types import Decision, Placement


class Booking:
    """Books what is decided, and starts what is booked once there is room for it in fact."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._noted: set[str] = set()

    def book(self, decision: Decision) -> None:
        """Book a decision. What has changed since the snapshot is left to the next one."""
        reasons: dict[str, str] = {wait.workload_id: wait.reason for wait in decision.blocked}
        for action in decision.actions:
            live = self._roster.lives[action.workload_id]
            match action:
                case Preempt(for_id=for_id, reason=reason):
                    self._preempt(live, f"{for_id} takes its place: it {reason}")
                case Place(placement=placement, reason=reason):
                    self._place(live, placement, reason)
                case Shrink(placement=placement, reason=reason) | Grow(placement=placement, reason=reason):
                    self._resize(live, placement, reason)
                case Move(placement=placement, reason=reason):
                    self._resize(live, placement, reason)
                case Reserve(reason=reason):
                    reasons[live.id] = reason
        for workload_id in self._noted - reasons.keys():
            if workload_id in self._roster.ledger.pending.row_of:
                self._roster.note(self._roster.lives[workload_id], QUEUED)
        for workload_id, reason in reasons.items():
            self._roster.note(self._roster.lives[workload_id], reason)
        self._noted = set(reasons)

    def begin_planned(self) -> None:
        """Start each booked gang that fits beside what is held in fact, and whose own last lease is gone."""
        for live in list(self._roster.planned.values()):
            plan = live.plan
            if plan is None or live.state is not State.PENDING:
                continue
            if live.lease is None and self._roster.holdings.fits(live.spec.gang, plan.placement):
                self._roster.take(live, Placed(plan.placement, plan.reason, plan.waited_s))
            else:
                nodes = ", ".join(node for node, _ in plan.placement.workers)
                whose = "what yields there" if live.lease is None else "its last attempt"
                self._roster.note(live, f"has its place on {nodes}, as soon as {whose} has given back what it held")

    def _preempt(self, live: Live, reason: str) -> None:
        if live.plan is not None:
            self._roster.unplan(live)
        elif self._roster.take(live, ToldToYield(reason)):
            self._roster.unbook(live)

    def _place(self, live: Live, placement: Placement, reason: str) -> None:
        try:
            progress = self._roster.ledger.start(live.id, placement)
        except PlacementError as error:
            self._roster.note(live, error.message)
            return
        self._roster.plan(live, Plan(placement, reason, progress.waited_s))

    def _resize(self, live: Live, placement: Placement, reason: str) -> None:
        try:
            progress = self._roster.ledger.resize(live.id, placement)
        except PlacementError:
            return
        self._roster.plan(live, Plan(placement, reason, progress.waited_s))
        self._roster.take(live, ToldToYield(reason, placement))
