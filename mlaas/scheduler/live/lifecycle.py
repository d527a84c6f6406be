"""The states of a workload, and what leads from one to the next.

    PENDING --Placed--> STARTING --Started--> RUNNING --ToldToYield--> YIELDING
       ^                   |                     |                        |
       +--- NotPlaced -----+------- Lost --------+--- yielded, killed ----+
       |                                         |
       +------- failed, with retries left -------+---> SUCCEEDED, FAILED; and CANCELLED from everywhere

`step` is pure: a record and an event give the next record, what to tell people, and what to do on the cluster once
the record is in the store. An event that does not concern a record any more changes nothing: it came late.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mlaas.scheduler.live.types import Outcome, lease_id_of
from mlaas.scheduler.types import Placement
from mlaas.scheduler.wording import count
from mlaas.store.workloads import WorkloadEvent

if TYPE_CHECKING:
    from datetime import datetime

    from mlaas.scheduler.requests.spec import Retries, WorkloadSpec
    from mlaas.store.workloads import WorkloadRecord


class State(StrEnum):
    """Where a workload stands. The last three are final."""

    PENDING = "pending"
    """In the queue, or held back until its dependencies have succeeded or its back-off is over."""
    STARTING = "starting"
    """Its gang is being placed; it counts as running for all decisions."""
    RUNNING = "running"
    YIELDING = "yielding"
    """Told to checkpoint and give back what it holds, until a deadline."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing leads out of it."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    @property
    def holds_gang(self) -> bool:
        """Whether it holds cells of the cluster."""
        return self in (State.STARTING, State.RUNNING, State.YIELDING)


@dataclass(frozen=True, slots=True)
class Placed:
    """Its gang may start: what has to yield for it has yielded."""

    placement: Placement
    reason: str
    waited_s: float
    """In the queue, over all its waits."""


@dataclass(frozen=True, slots=True)
class Started:
    """Its group is there, and its command runs."""


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """The cluster refused the group or the command: somebody else was faster, or a node has gone."""

    reason: str
    again_in_s: float


@dataclass(frozen=True, slots=True)
class ToldToYield:
    """It has to checkpoint and give back."""

    reason: str
    placement: Placement | None = None
    """Where it goes on at once, at another size or on other nodes; None: it is preempted and waits again."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """It has ignored the signal to yield."""


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """Its command has ended by itself."""

    exit_code: int
    last_line: str


@dataclass(frozen=True, slots=True)
class GaveBack:
    """Its holder has ended the lease."""

    outcome: Outcome
    message: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A node, its group or its launcher is gone: no fault of its own."""

    reason: str


@dataclass(frozen=True, slots=True)
class HolderDied:
    """The process that asked for the gang is silent, and nobody else can go on with it."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Its holder makes the groups of this lease itself."""

    job: str | None = None
    """The Ray job in which it does; None: not known, and so they are not removed for it."""


@dataclass(frozen=True, slots=True)
class DependencyEnded:
    """What it waits for will not succeed any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody does not want it any more."""

    by: str


Event = (
    Placed | Started | NotPlaced | ToldToYield | DeadlinePassed | CommandEnded | GaveBack | Lost | HolderDied
    | HandedOver | DependencyEnded | Cancelled
)  # fmt: skip


class Effect(StrEnum):
    """What is done on the cluster for a lease, once the store knows why. Each may be repeated."""

    START = "start"
    """Make its group, and start its command in it."""
    ASK_TO_YIELD = "ask-to-yield"
    """Send its command SIGTERM; a holder is told by its watch."""
    END = "end"
    """End its command, remove its group and what its holder has made in place of it, and forget all of it."""
    DROP_GROUP = "drop-group"
    """Remove its group alone."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When an event is taken in."""

    now: datetime
    """For the record."""
    gained_s: float = 0.0
    """What the present attempt adds to its time at full size, by a clock that does not jump."""
    is_booked: bool = False
    """Whether it has its next place already, and goes on there as soon as it has yielded."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an event leads to."""

    record: WorkloadRecord
    events: tuple[WorkloadEvent, ...] = ()
    effects: tuple[Effect, ...] = ()
    """For the lease of the record that was stepped from, or for the new one where `START` is among them."""


def step(record: WorkloadRecord, spec: WorkloadSpec, event: Event, moment: Moment) -> Step:
    """Return what an event leads to; the record itself when it changes nothing."""
    state = State(record.state)
    if state.is_final:
        return Step(record)
    match event:
        case Placed() if state is State.PENDING:
            return _place(record, event, moment)
        case Started() if state in (State.STARTING, State.YIELDING):
            return _started(record, state, moment)
        case ToldToYield() if state in (State.STARTING, State.RUNNING):
            return _told_to_yield(record, spec, event, moment)
        case HandedOver(job=job) if state.holds_gang:
            text = "its holder makes the placement groups itself; the nodes stay booked"
            return _hand_over(record, moment, text, job=job)
        case Cancelled():
            return _end(record, state, State.CANCELLED, f"cancelled by {event.by}", moment)
        case DependencyEnded() if state is State.PENDING:
            return _end(record, state, State.FAILED, event.reason, moment)
        case HolderDied():
            return _end(record, state, State.FAILED, event.reason, moment)
        case NotPlaced() | Lost() | DeadlinePassed() | CommandEnded() | GaveBack() if state.holds_gang:
            return _stopped(_left(record, event), spec, state, event, moment)
        case _:
            return Step(record)


def _place(record: WorkloadRecord, event: Placed, moment: Moment) -> Step:
    nodes = ", ".join(f"{workers} on {node}" for node, workers in event.placement.workers)
    text = f"{count(event.placement.num_workers, 'worker')} placed: {nodes}; {event.reason}"
    placement = [[node, workers] for node, workers in event.placement.workers]
    return _changed(
        record, moment, "placed", text, (Effect.START,), {"placement": placement}, state=State.STARTING.value,
        attempt=record.attempt + 1, placement=placement, started_at=moment.now, ended_at=None, not_before_at=None,
        waited_s=event.waited_s, handed_over=False, handed_over_job=None, holder=None, holder_seen_at=None,
        exit_code=None,
    )  # fmt: skip


def _started(record: WorkloadRecord, state: State, moment: Moment) -> Step:
    if state is State.YIELDING:
        return Step(record, effects=(Effect.ASK_TO_YIELD,))
    text = f"runs; attempt {record.attempt}"
    return _changed(record, moment, "running", text, (), state=State.RUNNING.value, started_at=moment.now)


def _told_to_yield(record: WorkloadRecord, spec: WorkloadSpec, event: ToldToYield, moment: Moment) -> Step:
    then, goes_on = "goes back to the queue", event.placement
    if goes_on is not None:
        is_moved = goes_on.num_workers == sum(int(workers) for _, workers in record.placement or ())
        nodes = ", ".join(node for node, _ in goes_on.workers)
        then = f"moves to {nodes}" if is_moved else f"goes on with {count(goes_on.num_workers, 'worker')} on {nodes}"
    text = f"told to yield within {spec.yield_grace_s:g} s, and {then}: {event.reason}"
    effects = (Effect.ASK_TO_YIELD,) if record.state == State.RUNNING else ()
    detail = {"num_workers": None if goes_on is None else goes_on.num_workers}
    return _changed(
        record, moment, "told-to-yield", text, effects, detail, state=State.YIELDING.value,
        yield_by_at=moment.now + timedelta(seconds=spec.yield_grace_s),
        num_preemptions=record.num_preemptions + (goes_on is None),
    )  # fmt: skip


def _hand_over(record: WorkloadRecord, moment: Moment, text: str, *, job: str | None = None) -> Step:
    if record.handed_over:
        return Step(record)
    effects = (Effect.DROP_GROUP,)
    return _changed(record, moment, "handed-over", text, effects, handed_over=True, handed_over_job=job)


def _left(record: WorkloadRecord, event: Event) -> WorkloadRecord:
    """Return the record of a gang that is left: what the job of who gave it back makes there is the lease's no more."""
    return replace(record, handed_over_job=None) if isinstance(event, GaveBack) else record


def _stopped(
    record: WorkloadRecord,
    spec: WorkloadSpec,
    state: State,
    event: NotPlaced | Lost | DeadlinePassed | CommandEnded | GaveBack,
    moment: Moment,
) -> Step:
    """It holds its gang no more: it has succeeded, has failed, or waits again."""
    then = "goes on at once in the place that it has already" if moment.is_booked else "queued again"
    match event:
        case NotPlaced(reason=reason, again_in_s=again_in_s):
            text = f"the cluster refused its gang, and is asked again in {again_in_s:g} s: {reason}"
            return _requeue(record, spec, moment, "not-placed", text, gained_s=0.0, wait_s=again_in_s)
        case Lost(reason=reason):
            return _requeue(record, spec, moment, "lost", f"queued again: {reason}", gained_s=moment.gained_s)
        case DeadlinePassed() if state is State.YIELDING:
            text = f"killed: it ignored the signal to yield for {spec.yield_grace_s:g} s; {then}, no failure"
            return _requeue(record, spec, moment, "killed", text, gained_s=moment.gained_s)
        case DeadlinePassed():
            return Step(record)
        case GaveBack(outcome=Outcome.FINISHED | Outcome.FAILED) if spec.command is not None:
            text = "its driver has given the gang back, and decides by its exit code how this ends"
            return _hand_over(record, moment, text)
        case CommandEnded(exit_code=0) | GaveBack(outcome=Outcome.FINISHED):
            text = _said("succeeded", event)
            if state is State.YIELDING and isinstance(event, CommandEnded):
                text += " after it was told to yield, which says that its work is done"
            return _end(record, state, State.SUCCEEDED, text, moment, gained_s=moment.gained_s, exit_code=0)
        case CommandEnded() if state is State.YIELDING:
            return _requeue(record, spec, moment, "yielded", f"yielded; {then}", gained_s=moment.gained_s)
        case GaveBack(outcome=Outcome.YIELDED):
            return _requeue(record, spec, moment, "yielded", f"yielded; {then}", gained_s=moment.gained_s)
        case _:
            return _failed(record, spec, state, event, moment)


def _failed(
    record: WorkloadRecord, spec: WorkloadSpec, state: State, event: CommandEnded | GaveBack, moment: Moment
) -> Step:
    exit_code = event.exit_code if isinstance(event, CommandEnded) else None
    failures = record.num_failures + 1
    text = _said("failed", event)
    retries = spec.retries
    if failures > retries.max_retries:
        more = f"; no retry is left of {retries.max_retries}" if retries.max_retries else ""
        return _end(record, state, State.FAILED, text + more, moment, num_failures=failures, exit_code=exit_code)
    wait_s = backoff_s(retries, failures)
    text = f"{text}; retry {failures} of {retries.max_retries} in {wait_s:g} s"
    return _requeue(
        record, spec, moment, "failed", text, gained_s=0.0, wait_s=wait_s, num_failures=failures, exit_code=exit_code
    )


def backoff_s(retries: Retries, failures: int) -> float:
    """Return the wait before the next attempt after so many failures."""
    return min(retries.backoff_s * 2.0 ** min(failures - 1, 60), retries.max_backoff_s)


def _requeue(
    record: WorkloadRecord,
    spec: WorkloadSpec,
    moment: Moment,
    kind: str,
    text: str,
    *,
    gained_s: float,
    wait_s: float | None = None,
    **changes: Any,
) -> Step:
    owed_s = spec.restart_cost_s if gained_s else record.restart_owed_s
    return _changed(
        record, moment, kind, text, (Effect.END,), state=State.PENDING.value, ended_at=moment.now, yield_by_at=None,
        not_before_at=None if wait_s is None else moment.now + timedelta(seconds=wait_s),
        attained_s=record.attained_s + gained_s, restart_owed_s=owed_s, **changes,
    )  # fmt: skip


def _end(
    record: WorkloadRecord,
    state: State,
    final: State,
    text: str,
    moment: Moment,
    *,
    gained_s: float = 0.0,
    **changes: Any,
) -> Step:
    effects = (Effect.END,) if state.holds_gang else ()
    return _changed(
        record, moment, final.value, text, effects, state=final.value, ended_at=moment.now, yield_by_at=None,
        not_before_at=None, attained_s=record.attained_s + gained_s, **changes,
    )  # fmt: skip


def _changed(
    record: WorkloadRecord,
    moment: Moment,
    kind: str,
    text: str,
    effects: tuple[Effect, ...],
    detail: dict[str, Any] | None = None,
    **changes: Any,
) -> Step:
    after = replace(record, reason=text, **changes)
    about = {"lease": lease_id_of(after.id, after.attempt)} if after.attempt else {}
    event = WorkloadEvent(
        workload_id=record.id, at=moment.now, kind=kind, text=text, detail={**about, **(detail or {})}
    )
    return Step(after, (event,), effects)


def _said(verb: str, event: CommandEnded | GaveBack) -> str:
    """Return what is known of an end, as one line."""
    if isinstance(event, GaveBack):
        return f"{verb}: {event.message}" if event.message else verb
    how = f"signal {-event.exit_code}" if event.exit_code < 0 else f"exit code {event.exit_code}"
    said = f", last line: {event.last_line.strip()[-200:]}" if event.exit_code and event.last_line.strip() else ""
    return f"{verb}: its command ended with {how}{said}"
