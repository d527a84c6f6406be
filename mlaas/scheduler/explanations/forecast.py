"""When a waiting workload should start: the same decision, played forward on what is believed of runtimes.

Runtimes are drawn from their beliefs, given the time already run, in several courses whose draws are spread evenly
over each belief (Latin hypercube). The median course gives the expected start, the first and the last an honest range.
What nobody has submitted yet is not foreseen.

Source: McKay, Beckman and Conover, "A comparison of three methods for selecting values of input variables",
Technometrics 1979.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.explanations.turn import rows_before
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import Grow, Move, Place, Preempt, Shrink
from mlaas.scheduler.wording import duration

if TYPE_CHECKING:
    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.scheduler.tables import Entry, Progress

NUM_COURSES = 9
"""The truth lies between the first and the last of nine independent draws eight times in ten."""
MOST_ROWS = 60_000
"""Waiting and running rows that decisions of all courses may look at: about half a second of one core."""
MOST_CYCLES = 10
"""Cycles at one moment, each after room was made."""
REVIEW_S = 300.0
REVIEW_PART = 0.25
"""While work waits, ranks move: a course looks again after `REVIEW_S`, or this part of the time it has covered."""
FIXED_ROWS = 100
"""What a decision costs beyond its rows, in rows."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a workload starts, in seconds from now, by courses of events drawn from the beliefs."""

    expected_s: float | None
    """Median; None: not within what was played forward."""
    earliest_s: float | None
    latest_s: float | None
    """None: in some course not within what was played forward."""
    horizon_s: float
    """How far the courses were played in which it has not started; 0: it starts in each, or never."""
    never: bool = False
    """In no course, even with everything that runs now gone: other nodes or quotas are needed."""

    def text(self) -> str:
        """Say when, and how sure that is."""
        if self.never:
            return "never, even with all that runs now gone: it needs other nodes or quotas"
        if self.expected_s is None:
            first = "" if self.earliest_s is None else f", in {duration(self.earliest_s)} at the earliest"
            return f"not within the next {duration(self.horizon_s)}{first}; later than that is not foreseen"
        if self.latest_s == 0.0:
            return "with one of the next decisions"
        last = "or later" if self.latest_s is None else f"to {duration(self.latest_s)}"
        spread = f"{duration(self.earliest_s or 0.0)} {last}"
        return f"in about {duration(self.expected_s)} ({spread}), if nothing new goes before it"


def forecast(snapshot: Snapshot, policy: SchedulingPolicy, workload_id: str, *, most_rows: int = MOST_ROWS) -> Forecast:
    """Return when a waiting workload should start.

    Args:
        snapshot: The world.
        policy: The order that decisions follow.
        workload_id: Who waits.
        most_rows: Bound on the work, in rows that decisions look at.
    """
    world = _relevant(snapshot, policy, workload_id, most_rows=most_rows)
    courses = [_Course(world, policy, chances) for chances in _draws(snapshot)]
    starts = [course.start_of(workload_id, most_rows=most_rows // NUM_COURSES) for course in courses]
    known = sorted(start - snapshot.now_s for start in starts if start is not None and math.isfinite(start))
    open_s = [course.ledger.now_s for course, start in zip(courses, starts, strict=True) if start is None]
    return Forecast(
        expected_s=known[NUM_COURSES // 2] if len(known) > NUM_COURSES // 2 else None,
        earliest_s=known[0] if known else None,
        latest_s=known[-1] if len(known) == NUM_COURSES else None,
        horizon_s=min(open_s, default=snapshot.now_s) - snapshot.now_s,
        never=all(start == math.inf for start in starts),
    )


def left_s(entry: Entry, *, attained_s: float) -> tuple[float, ...]:
    """Return the seconds at full size that a run has left: one in ten, the median, and nine in ten."""
    return tuple(_total_s(entry, chance, attained_s=attained_s) - attained_s for chance in (0.1, 0.5, 0.9))


def _total_s(entry: Entry, chance: float, *, attained_s: float) -> float:
    """Return the runtime that a run does not exceed with this chance, given that it has not ended yet."""
    belief = entry.belief
    since_s = max(attained_s - belief.from_s, 0.0)
    gone = _NORMAL.cdf((math.log(since_s) - belief.log_median) / belief.sigma) if since_s > 0.0 else 0.0
    below = min(gone + chance * (1.0 - gone), 1.0 - 1e-12)
    drawn_s = math.exp(belief.log_median + belief.sigma * _NORMAL.inv_cdf(max(below, 1e-12)))
    return belief.from_s + max(drawn_s, since_s)


def _relevant(snapshot: Snapshot, policy: SchedulingPolicy, workload_id: str, *, most_rows: int) -> Snapshot:
    """Return the world that courses begin with: as it is, or when much waits without what comes after the workload.

    One of each queue stays, so that the others' shares are what they are.
    """
    pending = snapshot.pending
    if len(pending) <= most_rows // (20 * NUM_COURSES):
        return snapshot
    row = pending.row_of[workload_id]
    firsts = np.unique(pending.ints_of("queue"), return_index=True)[1]
    kept = {row, *rows_before(snapshot, policy, row).tolist(), *firsts.tolist()}
    ledger = Ledger.of(snapshot)
    for other, other_id in enumerate(pending.ids):
        if other not in kept:
            ledger.remove(other_id)
    return ledger.snapshot()


def _draws(snapshot: Snapshot) -> list[dict[str, float]]:
    """Return for each course a chance for each workload; the same whoever is asked for."""
    tables = (snapshot.pending, snapshot.running)
    sequence = np.concatenate([table.ints_of("sequence") for table in tables])
    ids = [workload_id for table in tables for workload_id in table.ids]
    strata = np.tile(np.arange(NUM_COURSES), (len(ids), 1))
    chances = (np.random.default_rng(0).permuted(strata, axis=1) + 0.5) / NUM_COURSES
    ordered = [ids[row] for row in np.argsort(sequence, kind="stable")]
    return [dict(zip(ordered, chances[:, number].tolist(), strict=True)) for number in range(NUM_COURSES)]


class _Course:
    """One course of events."""

    def __init__(self, snapshot: Snapshot, policy: SchedulingPolicy, chances: dict[str, float]) -> None:
        self.policy = policy
        self.chances = chances
        self.ledger = Ledger.of(snapshot)
        self.begun_s = snapshot.now_s
        self.rows = 0
        self.ends: list[tuple[float, str]] = []
        self.end_s: dict[str, float] = {}
        self.total_s: dict[str, float] = {}
        pending, running = snapshot.pending, snapshot.running
        for row in range(len(pending)):
            self._draw(pending.entry(row), attained_s=None)
        attained_s = running.attained_s(snapshot.now_s)
        for row in range(len(running)):
            self._draw(running.entry(row), attained_s=float(attained_s[row]))
            self._expect_end(running.ids[row], attained_s=float(attained_s[row]))

    def start_of(self, workload_id: str, *, most_rows: int) -> float | None:
        """Return when a workload starts; infinite when never, None when not within the bound."""
        review_s = self.begun_s
        while self.rows < most_rows:
            if self._settle(workload_id, most_rows=most_rows):
                return self.ledger.now_s
            covered_s = self.ledger.now_s - self.begun_s
            review_s = self.ledger.now_s + max(REVIEW_S, REVIEW_PART * covered_s)
            next_s = self._next_end_s()
            if next_s == math.inf:
                return math.inf
            if self.policy.margin is not None:
                next_s = min(next_s, review_s)
            self.ledger.advance(next_s)
            while self._next_end_s() <= next_s:
                self._finish(heapq.heappop(self.ends)[1])
        return None

    def _draw(self, entry: Entry, *, attained_s: float | None) -> None:
        had_s = entry.progress.attained_s if attained_s is None else attained_s
        self.total_s[entry.workload.id] = _total_s(entry, self.chances[entry.workload.id], attained_s=had_s)

    def _expect_end(self, workload_id: str, *, attained_s: float) -> None:
        """Set the end of a run that has had so much and is at its present size."""
        running = self.ledger.running
        row = running.row_of[workload_id]
        productive_s = max(float(running.floats_of("productive_from_s")[row]), self.ledger.now_s)
        left_s = (self.total_s[workload_id] - attained_s) / float(running.floats_of("speed")[row])
        self.end_s[workload_id] = productive_s + max(left_s, 0.0)
        heapq.heappush(self.ends, (self.end_s[workload_id], workload_id))

    def _next_end_s(self) -> float:
        while self.ends and self.end_s.get(self.ends[0][1]) != self.ends[0][0]:
            heapq.heappop(self.ends)
        return self.ends[0][0] if self.ends else math.inf

    def _finish(self, workload_id: str) -> None:
        self.ledger.finish(workload_id)
        del self.end_s[workload_id]

    def _settle(self, workload_id: str, *, most_rows: int) -> bool:
        """Decide and apply until no room is made any more, or the bound is reached; True when the workload starts."""
        for _ in range(MOST_CYCLES):
            if self.rows >= most_rows:
                break
            self.rows += len(self.ledger.pending) + len(self.ledger.running) + FIXED_ROWS
            decision = decide(self.ledger.snapshot(), self.policy)
            made_room = False
            for action in decision.actions:
                match action:
                    case Preempt():
                        self.ledger.requeue(action.workload_id)
                        del self.end_s[action.workload_id]
                        made_room = True
                    case Place():
                        if action.workload_id == workload_id:
                            return True
                        self._run_on(action.workload_id, self.ledger.start(action.workload_id, action.placement))
                    case Shrink() | Grow() | Move():
                        self._run_on(action.workload_id, self.ledger.resize(action.workload_id, action.placement))
            if not made_room:
                break
        return False

    def _run_on(self, workload_id: str, progress: Progress) -> None:
        self._expect_end(workload_id, attained_s=progress.attained_s)
