"""The event loop: jobs arrive and end on a virtual clock, and after each event the scheduler decides."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mlaas.errors import AdmissionError, ConfigError
from mlaas.scheduler.cluster import ClusterIndex
from mlaas.scheduler.cycle import decide
from mlaas.scheduler.estimates import Belief, History
from mlaas.scheduler.fairness import decayed, held_shares
from mlaas.scheduler.quota import QueueTree
from mlaas.scheduler.simulate.machines import gang_of, queues_for
from mlaas.scheduler.snapshot import Snapshot
from mlaas.scheduler.tables import PendingTable, Progress, RunningTable, dominant_share
from mlaas.scheduler.types import Grow, Place, Preempt, Shrink, Workload
from mlaas.scheduler.validation import check_workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.ordering import SchedulingPolicy
    from mlaas.scheduler.simulate.machines import Machines
    from mlaas.scheduler.simulate.traces import TraceJob
    from mlaas.scheduler.types import Decision

ORACLE = "srsf-oracle"
REVIEW_S = 300.0
"""While work waits, a preemptive policy looks again after so long: what runs grows older, and ranks move."""
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
            raise ConfigError("estimate_error", f"the estimate error is {self.estimate_error}; it is a factor of 1 (exact) or more")
        if not (math.isfinite(self.restart_cost_s) and self.restart_cost_s >= 0.0):
            raise ConfigError("restart_cost", f"the restart cost is {self.restart_cost_s}; it is a number of seconds, 0 or more")
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
    """GPUs that do useful work from each moment on; restarts are not useful."""
    backlog_gpus: Floats
    """GPUs that waiting jobs ask for from each moment on."""


@dataclass(slots=True)
class _Run:
    """One job's state while it is in the system."""

    index: int
    workload: Workload
    gang: int
    queue: int
    share: float
    belief: Belief
    duration_s: float
    progress: Progress = field(default_factory=Progress)
    since_s: float = 0.0
    ends_s: float = math.inf


def replay(jobs: Sequence[TraceJob], machines: Machines, policy: SchedulingPolicy, terms: Terms) -> Outcome:
    """Run a trace to its end and return what became of each job. The same arguments give the same outcome."""
    return _Replay(jobs, machines, policy, terms).run()


class _Replay:
    def __init__(self, jobs: Sequence[TraceJob], machines: Machines, policy: SchedulingPolicy, terms: Terms) -> None:
        is_oracle = policy.name == ORACLE
        self.policy, self.machines = policy, machines
        self.restart_cost_s = 0.0 if is_oracle else terms.restart_cost_s
        self.cluster = ClusterIndex(machines.nodes)
        self.totals = self.cluster.capacity.sum(axis=0)
        queues = queues_for(machines, (job.tenant for job in jobs))
        self.tree = QueueTree(queues, ["GPU", *self.cluster.scalar_column])
        self.jobs = jobs
        self.estimates = _estimates(jobs, 1.0 if is_oracle else terms.estimate_error, seed=terms.seed, is_oracle=is_oracle)
        self.fates = [Fate(job) for job in jobs]
        self.pending, self.running = PendingTable(), RunningTable()
        self.history = History()
        self.runs: dict[str, _Run] = {}
        self.ends: list[tuple[float, int, str]] = []
        self.average_share = np.zeros(len(queues))
        self.now_s = 0.0
        self.cycles = 0
        self.busy_gpus = 0.0
        self.backlog_gpus = 0.0
        self.timeline: list[tuple[float, float, float]] = []

    def run(self) -> Outcome:
        arrivals = iter(range(len(self.jobs)))
        arriving = next(arrivals, None)
        review_s = math.inf
        while arriving is not None or self.runs:
            next_arrival_s = math.inf if arriving is None else self.jobs[arriving].submit_s
            next_end_s = self._next_end_s()
            self._advance(min(next_arrival_s, next_end_s, review_s))
            while self._next_end_s() <= self.now_s:
                self._finish(heapq.heappop(self.ends)[2])
            while arriving is not None and self.jobs[arriving].submit_s <= self.now_s:
                self._arrive(arriving)
                arriving = next(arrivals, None)
            self._settle()
            review_s = self.now_s + REVIEW_S if len(self.pending) and self.policy.margin is not None else math.inf
            if review_s == math.inf and arriving is None and self._next_end_s() == math.inf:
                break
        return self._outcome()

    def _next_end_s(self) -> float:
        while self.ends and self._is_stale(self.ends[0]):
            heapq.heappop(self.ends)
        return self.ends[0][0] if self.ends else math.inf

    def _is_stale(self, end: tuple[float, int, str]) -> bool:
        run = self.runs.get(end[2])
        return run is None or run.ends_s != end[0]

    def _advance(self, now_s: float) -> None:
        elapsed_s = now_s - self.now_s
        if elapsed_s > 0.0:
            held = held_shares(
                self.running.ints_of("queue"), self.running.floats_of("share"), num_queues=len(self.average_share)
            )
            self.average_share = decayed(self.average_share, held, elapsed_s=elapsed_s)
        self.now_s = now_s

    def _arrive(self, index: int) -> None:
        job = self.jobs[index]
        gang = gang_of(job.num_gpus, gpus_per_node=self.machines.gpus_per_node)
        workload = Workload(
            id=f"job-{index}",
            gang=gang,
            submitted_s=job.submit_s,
            tenant=job.tenant,
            queue=job.tenant,
            name=job.name,
            priority=job.priority,
            estimate_s=self.estimates[index],
            deadline_s=job.deadline_s,
            restart_cost_s=self.restart_cost_s,
        )
        try:
            check_workload(workload, cluster=self.cluster, queues=self.tree.row_of)
        except AdmissionError as error:
            self.fates[index].refusal = error.message
            return
        number = self.cluster.compile(gang)
        share = dominant_share(
            self.cluster.gangs[number], self.totals, workers=gang.min_workers, num_devices=self.cluster.num_devices
        )
        belief = self.history.believe(tenant=job.tenant, name=job.name, estimate_s=workload.estimate_s)
        run = _Run(index, workload, number, self.tree.row_of[job.tenant], share, belief, job.duration_s)
        self.runs[workload.id] = run
        self._queue(run)

    def _queue(self, run: _Run) -> None:
        run.since_s, run.ends_s = self.now_s, math.inf
        self.backlog_gpus += run.workload.gang.worker.gpus * run.workload.gang.min_workers
        self.pending.add(
            run.workload, sequence=run.index, gang=run.gang, queue=run.queue, share=run.share, belief=run.belief,
            progress=run.progress, now_s=self.now_s,
        )  # fmt: skip

    def _finish(self, workload_id: str) -> None:
        run = self.runs.pop(workload_id)
        self._stop(run)
        self.fates[run.index].finished_s = self.now_s
        workload = run.workload
        self.history.observe(
            tenant=workload.tenant, name=workload.name, estimate_s=workload.estimate_s, runtime_s=run.duration_s
        )

    def _stop(self, run: _Run) -> None:
        self.cluster.give(self.running.remove(run.workload.id))

    def _settle(self) -> None:
        """Decide and apply until no room was made for anyone."""
        for _ in range(MOST_CYCLES):
            if not len(self.pending):
                break
            snapshot = Snapshot(self.now_s, self.cluster, self.tree, self.pending, self.running, self.average_share)
            decision = decide(snapshot, self.policy)
            self.cycles += 1
            if not self._apply(decision):
                break
        self._note()

    def _apply(self, decision: Decision) -> bool:
        """Carry a decision out at once; True when room was made, so that another look may find more to start."""
        made_room = False
        for action in decision.actions:
            match action:
                case Preempt(workload_id=workload_id):
                    self._preempt(self.runs[workload_id])
                    made_room = True
                case Place():
                    self._start(action)
                case Shrink() | Grow():
                    raise NotImplementedError("traces hold no elastic gangs")
        return made_room

    def _start(self, action: Place) -> None:
        run = self.runs[action.workload_id]
        fate = self.fates[run.index]
        gang = run.workload.gang
        self.pending.remove(action.workload_id)
        self.backlog_gpus -= gang.worker.gpus * gang.min_workers
        waited_s = self.now_s - run.since_s
        progress = Progress(run.progress.attained_s, run.progress.waited_s + waited_s, run.progress.restart_owed_s)
        nodes = [(self.cluster.row_of[name], count) for name, count in action.placement.workers]
        allocation = self.cluster.free().allocate(self.cluster.gangs[run.gang], nodes)
        self.cluster.take(allocation)
        self.running.add(
            run.workload, allocation, sequence=run.index, gang=run.gang, queue=run.queue, share=run.share, belief=run.belief,
            progress=progress, now_s=self.now_s,
        )  # fmt: skip
        run.progress, run.since_s = progress, self.now_s
        run.ends_s = self.now_s + progress.restart_owed_s + run.duration_s - progress.attained_s
        heapq.heappush(self.ends, (run.ends_s, run.index, run.workload.id))
        fate.waited_s = progress.waited_s
        if math.isnan(fate.started_s):
            fate.started_s = self.now_s

    def _preempt(self, run: _Run) -> None:
        owed_s = run.progress.restart_owed_s
        ran_s = max(self.now_s - run.since_s - owed_s, 0.0)
        fate = self.fates[run.index]
        fate.preemptions += 1
        fate.lost_gpu_s += self.restart_cost_s * run.workload.gang.worker.gpus * run.workload.gang.min_workers
        run.progress = Progress(run.progress.attained_s + ran_s, run.progress.waited_s, self.restart_cost_s)
        self._stop(run)
        self._queue(run)

    def _note(self) -> None:
        free = self.cluster.cells[:, : self.cluster.num_devices].sum()
        busy = (self.cluster.gpu_units - int(free)) / 10_000
        self.timeline.append((self.now_s, busy, self.backlog_gpus))

    def _outcome(self) -> Outcome:
        times, busy, backlog = np.array(self.timeline).T if self.timeline else np.zeros((3, 0))
        return Outcome(
            self.policy.name, self.fates, self.cluster.gpu_units / 10_000, self.cycles, times, busy, np.maximum(backlog, 0.0)
        )


def _estimates(jobs: Sequence[TraceJob], error: float, *, seed: int, is_oracle: bool) -> list[float]:
    """Stated estimates: the trace's own where it has them, else the true runtime off by a log-normal factor."""
    noise = np.exp(np.random.default_rng(seed).normal(0.0, math.log(error), size=len(jobs))) if error > 1.0 else np.ones(len(jobs))
    return [
        job.duration_s if is_oracle else max(job.estimate_s or job.duration_s * float(factor), 1e-3)
        for job, factor in zip(jobs, noise, strict=True)
    ]
