"""Why a workload is where it is: what it lacks, whose turn it is, when it should start, and what would start it now.

All of it is drawn from `decide` itself: on the world as it is, played forward (`forecast`), or changed (`remedies`).
It costs up to a few seconds on a full cluster, so the live scheduler calls it on a copy, beside its loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import borrowed
from mlaas.scheduler.explanations.forecast import Forecast, forecast, left_s
from mlaas.scheduler.explanations.remedies import Choices, Remedy, remedies_for
from mlaas.scheduler.explanations.shortage import Fit, QuotaLevel, fit_of, quota_levels
from mlaas.scheduler.explanations.turn import Turn, turn_of
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.live.lifecycle import State
from mlaas.scheduler.types import Place, Placement, Reserve, Wait
from mlaas.scheduler.wording import count, duration, listed

if TYPE_CHECKING:
    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.estimates import Belief
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.scheduler.types import Decision, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the record says of a workload and a snapshot does not."""

    state: State
    reason: str = ""
    """Of that state, for people."""
    waits_for: tuple[str, ...] = ()
    """Workloads that have to succeed before it."""
    not_before_s: float | None = None
    """End of its back-off, on the snapshot's clock."""
    yield_by_s: float | None = None
    """Deadline of the signal to yield, on the snapshot's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """How it stands in its queue; of one that is held back, how it would stand if it were let go now."""

    starts_now: bool
    """The next decision places it."""
    placement: Placement | None
    """Where, if so."""
    after: tuple[str, ...]
    """Gangs that shrink or yield for it first."""
    wait: Wait | None
    """Why it is not placed, as the decision says it."""
    quota: tuple[QuotaLevel, ...]
    """Limits that bind it, from its queue upwards."""
    fit: Fit
    turn: Turn
    reserved_s: float | None
    """Seconds until the capacity that is reserved for it is expected to be free; None: it has no reservation."""
    forecast: Forecast
    remedies: tuple[Remedy, ...]
    """What would start it now; empty when it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How it stands on its nodes."""

    placement: Placement
    since_s: float
    """Seconds that it has held them."""
    left_s: tuple[float, float, float]
    """Seconds it is believed to go on: one in ten, the median, nine in ten."""
    protected_s: float | None
    """Seconds until it may be asked to yield; None: never asked."""
    is_borrowed: bool
    """Whether it stands on capacity that its queue borrows, which goes back first."""
    yield_within_s: float | None
    """Seconds until it is killed, when it has been told to yield."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where a workload stands and why."""

    workload_id: str
    state: State
    reason: str
    held_back: tuple[str, ...]
    """What keeps it out of the queue: dependencies, a back-off."""
    queued: Queued | None
    running: Running | None
    array: str = ""
    """Of an array, how its indexes stand; all else is of one of them."""

    def lines(self) -> tuple[str, ...]:
        """Return it as text that fits a screen."""
        head = f"{self.workload_id} is {self.state}" + (f": {self.reason}" if self.reason else "")
        lines = [*([f"{self.array}; of these:"] if self.array else []), head, *self.held_back]
        if self.running is not None:
            lines += _running_lines(self.running)
        if self.queued is not None:
            lines += ["without that:"] if self.held_back and not self.queued.starts_now else []
            lines += queued_lines(self.queued, would=bool(self.held_back))
        return tuple(lines)


def explain(
    snapshot: Snapshot,
    policy: SchedulingPolicy,
    workload: Workload,
    *,
    standing: Standing,
    belief: Belief | None = None,
    choices: Choices | None = None,
) -> Explanation:
    """Return where a workload stands and why. Pure, and as certain as the decision itself.

    Args:
        snapshot: The world. It is not changed.
        policy: The order that decisions follow.
        workload: Who is asked for. One that is not in the snapshot and not ended is held back, and explained as if it
            were let go now.
        standing: What the record says of it.
        belief: How long it is believed to run, of one that is not in the snapshot; None: no more than anyone knows.
        choices: What its tenant may ask for instead; None: any queue, no other class.
    """
    queued = running = None
    if workload.id in snapshot.running.row_of:
        running = _running(snapshot, policy, workload.id, standing)
    elif not standing.state.is_final:
        queued = _queued(_with(snapshot, workload, belief), policy, workload.id, choices or Choices())
    return Explanation(
        workload_id=workload.id,
        state=standing.state,
        reason=standing.reason,
        held_back=_held_back(standing, snapshot.now_s),
        queued=queued,
        running=running,
    )


def queued_as(
    snapshot: Snapshot, policy: SchedulingPolicy, workload_id: str, *, decision: Decision, choices: Choices
) -> Queued:
    """Return how a waiting workload stands, given the decision on this snapshot."""
    pending, cluster = snapshot.pending, snapshot.cluster
    row = pending.row_of[workload_id]
    workload = pending.workloads[row]
    gang, workers = cluster.gangs[int(pending.ints_of("gang")[row])], int(pending.ints_of("workers")[row])
    place = next((it for it in decision.actions if isinstance(it, Place) and it.workload_id == workload_id), None)
    held = next((it for it in decision.actions if isinstance(it, Reserve) and it.workload_id == workload_id), None)
    now = Forecast(0.0, 0.0, 0.0, 0.0)
    return Queued(
        starts_now=place is not None,
        placement=None if place is None else place.placement,
        after=() if place is None else place.after,
        wait=None if place is not None else decision.waits_for(workload_id),
        quota=quota_levels(snapshot, queue=workload.queue, need=workers * gang.demand),
        fit=fit_of(snapshot, gang, workers=workers),
        turn=turn_of(snapshot, policy, workload_id),
        reserved_s=None if held is None else held.start_s - snapshot.now_s,
        forecast=now if place is not None else forecast(snapshot, policy, workload_id),
        remedies=() if place is not None else remedies_for(snapshot, policy, workload_id, choices=choices),
    )


def _queued(snapshot: Snapshot, policy: SchedulingPolicy, workload_id: str, choices: Choices) -> Queued:
    return queued_as(snapshot, policy, workload_id, decision=decide(snapshot, policy), choices=choices)


def _with(snapshot: Snapshot, workload: Workload, belief: Belief | None) -> Snapshot:
    """Return a world in which a workload is queued."""
    if workload.id in snapshot.pending.row_of:
        return snapshot
    ledger = Ledger.of(snapshot)
    ledger.submit(workload, belief=belief)
    return ledger.snapshot()


def _running(snapshot: Snapshot, policy: SchedulingPolicy, workload_id: str, standing: Standing) -> Running:
    running, now_s = snapshot.running, snapshot.now_s
    row = running.row_of[workload_id]
    entry = running.entry(row)
    attained_s = float(running.attained_s(now_s)[row])
    speed = float(running.floats_of("speed")[row])
    owed_s = max(float(running.floats_of("productive_from_s")[row]) - now_s, 0.0)
    quick_s, median_s, slow_s = (seconds / speed + owed_s for seconds in left_s(entry, attained_s=attained_s))
    ends_protected_s = max(float(running.floats_of("protected_until_s")[row]) - now_s, 0.0)
    return Running(
        placement=snapshot.cluster.placement(running.allocations[workload_id]),
        since_s=max(now_s - entry.since_s, 0.0),
        left_s=(quick_s, median_s, slow_s),
        protected_s=ends_protected_s if entry.workload.preemptible else None,
        is_borrowed=snapshot.queues.is_limited and bool(borrowed(snapshot, policy.running_ranks(snapshot))[row]),
        yield_within_s=None if standing.yield_by_s is None else max(standing.yield_by_s - now_s, 0.0),
    )


def _held_back(standing: Standing, now_s: float) -> tuple[str, ...]:
    lines = []
    if standing.waits_for:
        have = "has" if len(standing.waits_for) == 1 else "have"
        lines.append(f"held back until {listed(standing.waits_for)} {have} succeeded")
    if standing.not_before_s is not None and standing.not_before_s > now_s:
        lines.append(f"held back for another {duration(standing.not_before_s - now_s)} after its last failure")
    return tuple(lines)


def _running_lines(running: Running) -> list[str]:
    where = listed([f"{node} ({count(workers, 'worker')})" for node, workers in running.placement.workers])
    quick_s, median_s, slow_s = running.left_s
    lines = [
        f"on {where} for {duration(running.since_s)}",
        f"should go on for about {duration(median_s)} ({duration(quick_s)} to {duration(slow_s)})",
    ]
    if running.yield_within_s is not None:
        lines.append(f"told to yield; killed in {duration(running.yield_within_s)} if it has not given back by then")
    elif running.protected_s is None:
        lines.append("is never asked to yield")
    elif running.protected_s > 0.0:
        lines.append(f"is not asked to yield for another {duration(running.protected_s)}")
    if running.is_borrowed:
        lines.append("stands on capacity that its queue borrows: asked to yield first when its owner wants it back")
    return lines


def queued_lines(queued: Queued, *, would: bool) -> list[str]:
    """Say how a workload stands in its queue, or would stand there."""
    if queued.starts_now and queued.placement is not None:
        where = listed([f"{node} ({count(workers, 'worker')})" for node, workers in queued.placement.workers])
        after = f", once {listed(queued.after)} has made room" if queued.after else ""
        return [f"{'would start at once' if would else 'starts with the next decision'} on {where}{after}"]
    lines = []
    if queued.wait is not None:
        lines.append(f"{'would wait' if would else 'waits'}: {queued.wait.reason} ({queued.wait.code})")
    lines += [level.text() for level in queued.quota if level.missing]
    lines += queued.fit.texts()
    lines += queued.turn.texts()
    if queued.reserved_s is not None:
        lines.append(f"capacity is held for it from {duration(queued.reserved_s)} from now on")
    lines.append(f"expected start: {queued.forecast.text()}")
    if queued.remedies:
        lines.append("what would start it now:")
        lines += [f"  - {remedy.text}" for remedy in queued.remedies]
    return lines
