"""Whose turn it is: a workload's position among those that wait, who goes before it, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.wording import duration, magnitude

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import Ints
    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.snapshot import Snapshot

MOST_BEFORE = 5
"""Workloads before it that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Before:
    """A workload that goes first."""

    workload_id: str
    tenant: str
    queue: str
    num_workers: int
    size: str
    """What all its workers take, for people."""
    why: str


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a waiting workload stands in the policy's order."""

    position: int
    """From 1: the number of workloads that are looked at before it, and itself."""
    num_waiting: int
    before: tuple[Before, ...]
    """The first few of those that go before it, in order."""
    rank_parts: tuple[tuple[str, float], ...]
    """What its rank is made of, what weighs most first."""

    def texts(self) -> tuple[str, ...]:
        """Say its place, and who goes first for what reason."""
        if not self.before:
            return ("the only one that waits" if self.num_waiting == 1 else f"first of {self.num_waiting} that wait",)
        lines = [f"number {self.position} of {self.num_waiting} that wait; before it:"]
        lines += [f"  {each.workload_id} ({each.tenant}, {each.size}): {each.why}" for each in self.before]
        if self.position - 1 > len(self.before):
            lines.append(f"  and {self.position - 1 - len(self.before)} more")
        return tuple(lines)


def turn_of(snapshot: Snapshot, policy: SchedulingPolicy, workload_id: str) -> Turn:
    """Return where a waiting workload stands."""
    pending = snapshot.pending
    row = pending.row_of[workload_id]
    order = rows_before(snapshot, policy, row)
    parts = policy.pending_parts(snapshot)
    before = tuple(_before(snapshot, parts, int(other), row) for other in order[:MOST_BEFORE])
    own = tuple((name, float(values[row])) for name, values in parts.items())
    return Turn(len(order) + 1, len(pending), before, own)


def ids_in_turn(snapshot: Snapshot, policy: SchedulingPolicy) -> tuple[str, ...]:
    """Return what holds nodes, who has held them longest first, and then what waits, in its turn."""
    running, pending = snapshot.running, snapshot.pending
    by_start = np.argsort(running.floats_of("started_s"), kind="stable")
    by_rank = np.lexsort((pending.ints_of("sequence"), -policy.pending_ranks(snapshot)))
    return (*(running.ids[row] for row in by_start), *(pending.ids[row] for row in by_rank))


def rows_before(snapshot: Snapshot, policy: SchedulingPolicy, row: int) -> Ints:
    """Return the waiting rows that the policy looks at before this one, in its order."""
    ranks, sequence = policy.pending_ranks(snapshot), snapshot.pending.ints_of("sequence")
    ahead = np.flatnonzero((ranks > ranks[row]) | ((ranks == ranks[row]) & (sequence < sequence[row])))
    ordered: Ints = ahead[np.lexsort((sequence[ahead], -ranks[ahead]))]
    return ordered


def _before(snapshot: Snapshot, parts: dict[str, Floats], other: int, row: int) -> Before:
    pending = snapshot.pending
    workload = pending.workloads[other]
    workers = workload.gang.min_workers
    why = _why(snapshot, parts, other, row)
    needs = magnitude(workload.gang.worker, times=workers)
    return Before(workload.id, workload.tenant, workload.queue, workers, needs, why)


def _why(snapshot: Snapshot, parts: dict[str, Floats], other: int, row: int) -> str:
    """Say which part of its rank puts a workload first: the weightiest in which they differ.

    Estimate, fair share and width weigh alike, so of these the one with the larger difference.
    """
    pending = snapshot.pending
    differences = {name: float(values[other] - values[row]) for name, values in parts.items()}
    decisive = next((name for name in ("aging", "priority", "deadline", "guarantee") if differences.get(name, 0.0)), "")
    if not decisive and max(differences.values()) > 0.0:
        decisive = max(differences, key=lambda name: differences[name])
    match decisive:
        case "aging":
            return f"has waited {duration(float(pending.waits_s(snapshot.now_s)[other]))}, past the aging bound"
        case "priority":
            mine, its = (int(pending.ints_of("priority")[each]) for each in (row, other))
            return f"priority {its} against {mine}"
        case "deadline":
            return "its deadline is close"
        case "guarantee":
            return f"within the guarantee of queue {pending.workloads[other].queue}, which this is not"
        case "fair share":
            return f"queue {pending.workloads[other].queue} has had less of what it is due"
        case "estimate":
            left_s = float(pending.floats_of("remaining_s")[other])
            share = 100.0 * float(pending.floats_of("share")[other])
            return f"sooner done for what it takes: about {duration(left_s)} on {share:.3g} % of the cluster"
        case "width":
            share = 100.0 * float(pending.floats_of("share")[other])
            waited = duration(float(pending.waits_s(snapshot.now_s)[other]))
            return f"needs {share:.3g} % of the cluster at once, and has waited {waited} for that"
        case "order":
            return "comes first in the policy's order"
        case _:
            return "was accepted earlier"
