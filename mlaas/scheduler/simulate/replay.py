"""The event loop: jobs arrive and end on a virtual clock, and after each event the scheduler decides."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlaas.errors import AdmissionError, ConfigError
from mlaas.scheduler.cluster import UNIT
from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.simulate.machines import gang_of, queues_for
from mlaas.scheduler.types import Grow, Move, Place, Preempt, Shrink, Workload
from mlaas.scheduler.validation import check_workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.simulate.machines import Machines
    from mlaas.scheduler.simulate.traces import TraceJob
    from mlaas.scheduler.tables import Progress
    from mlaas.scheduler.types import Decision

ORACLE = "srsf-oracle"
REVIEW_S = 300.0
"""While work waits or may grow, the policy looks again after so long: what runs grows older, and ranks move."""
MOST_CYCLES = 10
"""Cycles at one moment, each after room was made; the live scheduler would go on with its next cycle."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a replay charges and how wrong its estimates are.

    Raises:
        ConfigError: the estimate error is below 1, or the restart cost below 0, or either is no finite number.
    """

    estimate_error: float = 3.0
    """Runtimes that the trace gives no estimate for are estimated off by exp(N(0, log of this)); 1 = exactly."""
    restart_cost_s: float = 60.0
    """Each preemption costs this long on all GPUs of the gang, when it starts again."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.estimate_error) and self.estimate_error >= 1.0):
            raise ConfigError(
                "estimate_error", f"the estimate error is {self.estimate_error}; it is a factor of 1 (exact) or more"
            )
        if not (math.isfinite(self.restart_cost_s) and self.restart_cost_s >= 0.0):
            raise ConfigError(
                "restart_cost", f"the restart cost is {self.restart_cost_s}; it is a number of seconds, 0 or more"
            )
        if self.seed < 0:
            raise ConfigError("seed", f"the seed is {self.seed}; it is 0 or more")


@dataclass(slots=True)
class Fate:
    """What became of one job."""

    job: TraceJob
    refusal: str = ""
    started_s: float = math.nan
    finished_s: float = math.nan
    waited_s: float = 0.0
    preemptions: int = 0
    lost_gpu_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A finished replay."""

    policy: str
    fates: list[Fate]
    num_gpus: float
    cycles: int
    times_s: Floats
    """Moments at which something changed."""
    busy_gpus: Floats
    """GPUs that jobs hold from each moment on, restarts included."""
    backlog_gpus: Floats
    """GPUs that waiting jobs ask for from each moment on."""


def replay(jobs: Sequence[TraceJob], machines: Machines, policy: SchedulingPolicy, terms: Terms) -> Outcome:
    """Run a trace to its end and return what became of each job. The same arguments give the same outcome."""
    return _Replay(jobs, machines, policy, terms).run()


class _Replay:
    def __init__(self, jobs: Sequence[TraceJob], machines: Machines, policy: SchedulingPolicy, terms: Terms) -> None:
        is_oracle = policy.name == ORACLE
        self.policy, self.jobs = policy, jobs
        self.gpus_per_node = machines.gpus_per_node
        self.restart_cost_s = 0.0 if is_oracle else terms.restart_cost_s
        self.estimates = _estimates(jobs, terms.estimate_error, seed=terms.seed, is_oracle=is_oracle)
        self.ledger = Ledger(machines.nodes, queues_for(machines, (job.tenant for job in jobs)))
        self.is_elastic = any(job.least_gpus < job.most_gpus for job in jobs)
        self.fates = [Fate(job) for job in jobs]
        self.index_of: dict[str, int] = {}
        self.ends: list[tuple[float, int]] = []
        self.end_s: dict[int, float] = {}
        self.cycles = 0
        self.backlog_gpus = 0.0
        self.timeline: list[tuple[float, float, float]] = []

    def run(self) -> Outcome:
        """Play every event in the order of its time."""
        next_index = 0
        review_s = math.inf
        while True:
            arrival_s = self.jobs[next_index].submit_s if next_index < len(self.jobs) else math.inf
            now_s = min(arrival_s, self._next_end_s(), review_s)
            if now_s == math.inf:
                return self._outcome()
            self.ledger.advance(now_s)
            while self._next_end_s() <= now_s:
                self._finish(heapq.heappop(self.ends)[1])
            while next_index < len(self.jobs) and self.jobs[next_index].submit_s <= now_s:
                self._arrive(next_index)
                next_index += 1
            self._settle()
            moves = (len(self.ledger.pending) > 0 and self.policy.margin is not None) or self.is_elastic
            review_s = now_s + REVIEW_S if moves and self.end_s else math.inf

    def _next_end_s(self) -> float:
        """Time of the next end; ends that a preemption or resize has moved are dropped here."""
        while self.ends and self.end_s.get(self.ends[0][1]) != self.ends[0][0]:
            heapq.heappop(self.ends)
        return self.ends[0][0] if self.ends else math.inf

    def _arrive(self, index: int) -> None:
        job = self.jobs[index]
        workload = Workload(
            id=f"job-{index}",
            gang=gang_of(job, gpus_per_node=self.gpus_per_node),
            submitted_s=job.submit_s,
            tenant=job.tenant,
            queue=job.tenant,
            name=job.name,
            priority=job.priority,
            estimate_s=self.estimates[index] * job.full_duration_s / job.duration_s,
            deadline_s=job.deadline_s,
            restart_cost_s=self.restart_cost_s,
        )
        try:
            check_workload(workload, cluster=self.ledger.cluster, queues=self.ledger.tree.row_of)
        except AdmissionError as error:
            self.fates[index].refusal = error.message
            return
        self.index_of[workload.id] = index
        self.ledger.submit(workload)
        self.backlog_gpus += job.least_gpus

    def _finish(self, index: int) -> None:
        self.ledger.finish(f"job-{index}")
        del self.end_s[index]
        self.fates[index].finished_s = self.ledger.now_s

    def _settle(self) -> None:
        """Decide and apply until no room was made for anyone."""
        for _ in range(MOST_CYCLES):
            if not len(self.ledger.pending) and not self.is_elastic:
                break
            self.cycles += 1
            if not self._apply(decide(self.ledger.snapshot(), self.policy)):
                break
        free_units = int(self.ledger.cluster.cells[:, : self.ledger.cluster.num_devices].sum())
        busy_gpus = (self.ledger.cluster.gpu_units - free_units) / UNIT
        self.timeline.append((self.ledger.now_s, busy_gpus, max(self.backlog_gpus, 0.0)))

    def _apply(self, decision: Decision) -> bool:
        """Carry a decision out at once; True when room was made, so that another look may find more to start."""
        made_room = False
        for action in decision.actions:
            match action:
                case Preempt():
                    self._preempt(self.index_of[action.workload_id])
                    made_room = True
                case Place():
                    index = self.index_of[action.workload_id]
                    self.backlog_gpus -= self.jobs[index].least_gpus
                    self._expect_end(index, self.ledger.start(action.workload_id, action.placement))
                case Shrink() | Grow() | Move():
                    index = self.index_of[action.workload_id]
                    self.fates[index].preemptions += isinstance(action, Move)
                    progress = self.ledger.resize(action.workload_id, action.placement)
                    self._charge_restart(index, action.placement.num_workers)
                    self._expect_end(index, progress)
        return made_room

    def _expect_end(self, index: int, progress: Progress) -> None:
        fate = self.fates[index]
        speed = float(self.ledger.running.floats_of("speed")[self.ledger.running.row_of[f"job-{index}"]])
        left_s = (self.jobs[index].full_duration_s - progress.attained_s) / speed
        self.end_s[index] = self.ledger.now_s + progress.restart_owed_s + left_s
        heapq.heappush(self.ends, (self.end_s[index], index))
        fate.waited_s = progress.waited_s
        if math.isnan(fate.started_s):
            fate.started_s = self.ledger.now_s

    def _preempt(self, index: int) -> None:
        workload = self.ledger.running.workloads[self.ledger.running.row_of[f"job-{index}"]]
        self.fates[index].preemptions += 1
        self._charge_restart(index, workload.gang.min_workers)
        self.ledger.requeue(workload.id)
        self.backlog_gpus += self.jobs[index].least_gpus
        del self.end_s[index]

    def _charge_restart(self, index: int, workers: int) -> None:
        gang = gang_of(self.jobs[index], gpus_per_node=self.gpus_per_node)
        self.fates[index].lost_gpu_s += self.restart_cost_s * gang.worker.gpus * workers

    def _outcome(self) -> Outcome:
        times, busy, backlog = np.array(self.timeline).reshape(-1, 3).T
        num_gpus = self.ledger.cluster.gpu_units / UNIT
        return Outcome(self.policy.name, self.fates, num_gpus, self.cycles, times, busy, backlog)


def _estimates(jobs: Sequence[TraceJob], error: float, *, seed: int, is_oracle: bool) -> list[float]:
    """Stated estimates: the trace's own where it has them, else the true runtime off by a log-normal factor."""
    noise = (
        np.exp(np.random.default_rng(seed).normal(0.0, math.log(error), size=len(jobs)))
        if error > 1.0
        else np.ones(len(jobs))
    )
    return [
        job.duration_s if is_oracle else max(job.estimate_s or job.duration_s * float(factor), 1e-3)
        for job, factor in zip(jobs, noise, strict=True)
    ]
