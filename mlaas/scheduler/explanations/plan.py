"""A dry run: what would happen if a workload were submitted now. Nothing changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlaas.errors import AdmissionError
from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.explanations.explain import Queued, queued_as, queued_lines
from mlaas.scheduler.explanations.remedies import Choices
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import Place
from mlaas.scheduler.validation import check_workload
from mlaas.scheduler.wording import amount, count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.estimates import Belief
    from mlaas.scheduler.explanations.shortage import QuotaLevel
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.scheduler.types import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would happen."""

    workload_id: str
    num_workloads: int
    """Indexes of an array; 1 of anything else."""
    refusal: str | None
    """Why it would not be accepted at all; all else is empty then."""
    num_starting: int = 0
    """How many of them the next decision would place."""
    queued: Queued | None = None
    """How the first would stand: placement, who yields, expected start, what would start it now."""
    quota: tuple[QuotaLevel, ...] = ()
    """Where its queue and the cohorts above stand now, and what it adds. Resources without limit are left out."""

    def lines(self) -> tuple[str, ...]:
        """Return it as text that fits a screen."""
        if self.refusal is not None or self.queued is None:
            return (f"would be refused: {self.refusal}",)
        lines = [f"{self.workload_id} would be accepted"]
        if self.num_workloads > 1:
            lines[0] += f" as {count(self.num_workloads, 'workload')}; {self.num_starting} would start now. The first:"
        lines += queued_lines(self.queued, would=True)
        lines += [_effect(level) for level in self.quota if not level.missing]
        return tuple(lines)


def plan(
    snapshot: Snapshot,
    policy: SchedulingPolicy,
    workloads: Sequence[Workload],
    *,
    belief: Belief | None = None,
    choices: Choices | None = None,
    may_grow: bool = False,
) -> Plan:
    """Return what would happen if workloads were submitted now. The snapshot is not changed.

    Args:
        snapshot: The world.
        policy: The order that decisions follow.
        workloads: What would be submitted: one, or one for each index of an array.
        belief: How long each is believed to run; None: no more than its estimate says.
        choices: What the tenant may ask for instead; None: any queue, no other class.
        may_grow: Whether an autoscaler may add nodes; then a gang that does not fit today is accepted.
    """
    first = workloads[0]
    ledger = Ledger.of(snapshot)
    try:
        check_workload(first, cluster=ledger.cluster, queues=_takes_workloads(snapshot), may_grow=may_grow)
    except AdmissionError as error:
        return Plan(workload_id=first.id, num_workloads=len(workloads), refusal=error.message)
    for workload in workloads:
        ledger.submit(replace(workload, submitted_s=snapshot.now_s), belief=belief)
    then = ledger.snapshot()
    decision = decide(then, policy)
    ids = {workload.id for workload in workloads}
    queued = queued_as(then, policy, first.id, decision=decision, choices=choices or Choices())
    return Plan(
        workload_id=first.id,
        num_workloads=len(workloads),
        refusal=None,
        num_starting=sum(isinstance(action, Place) and action.workload_id in ids for action in decision.actions),
        queued=queued,
        quota=queued.quota,
    )


def _takes_workloads(snapshot: Snapshot) -> tuple[str, ...]:
    tree = snapshot.queues
    parents = set(tree.parent)
    return tuple(queue for queue, row in tree.row_of.items() if row not in parents)


def _effect(level: QuotaLevel) -> str:
    then = level.used + level.need
    beyond = then - level.guarantee
    borrows = f", {beyond:.10g} of it borrowed" if beyond > 0.0 else ""
    return f"queue {level.queue} would use {then:.10g} of {amount(level.resource, level.limit)}{borrows}"
