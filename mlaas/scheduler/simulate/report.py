"""What a replay comes to: completion times, waits, utilisation, fairness, and what preemption cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.simulate.replay import Fate, Outcome

SLOWDOWN_FLOOR_S = 10.0
"""Runtimes below this count as this in slowdowns. Source: bounded slowdown, Feitelson and Rudolph, JSSPP 1998."""


@dataclass(frozen=True, slots=True)
class TenantReport:
    """One tenant's part."""

    tenant: str
    jobs: int
    avg_jct_s: float
    avg_wait_s: float
    slowdown: float
    """Mean bounded slowdown of its jobs: completion time over runtime."""
    gpu_share: float
    """Its part of all useful GPU time."""


@dataclass(frozen=True, slots=True)
class Report:
    """One policy on one trace. Times are in seconds; completion time runs from submission to the end."""

    policy: str
    jobs: int
    refused: int
    """Jobs that the empty cluster could not hold; they are in no figure."""
    avg_jct_s: float
    p50_jct_s: float
    p99_jct_s: float
    avg_wait_s: float
    """Mean time in the queue, over all waits of a job."""
    p99_wait_s: float
    makespan_s: float
    utilization: float
    """Part of all GPU time, from the first submission to the last end, that was held by jobs."""
    backlog_utilization: float
    """The same over the time in which waiting jobs asked for at least as many GPUs as were idle."""
    preemptions: int
    lost_work_s: float
    """GPU seconds spent on restarts."""
    worst_tenant_slowdown: float
    fairness_index: float
    """Jain's index of the tenants' slowdowns: 1 when all are equal, 1/n when one bears everything."""
    missed_deadlines: int
    cycles: int
    tenants: tuple[TenantReport, ...]


def summarize(outcome: Outcome) -> Report:
    """Return the figures of a replay."""
    done = [fate for fate in outcome.fates if not math.isnan(fate.finished_s)]
    jct = np.array([fate.finished_s - fate.job.submit_s for fate in done])
    waits = np.array([fate.waited_s for fate in done])
    by_tenant: dict[str, list[Fate]] = {}
    for fate in done:
        by_tenant.setdefault(fate.job.tenant, []).append(fate)
    work = sum(fate.job.duration_s * fate.job.num_gpus for fate in done)
    tenants = tuple(_tenant(name, fates, work) for name, fates in sorted(by_tenant.items()))
    slowdowns = np.array([tenant.slowdown for tenant in tenants])
    makespan_s = max((fate.finished_s for fate in done), default=0.0)
    utilization, backlog_utilization = _utilizations(outcome, makespan_s)
    return Report(
        policy=outcome.policy,
        jobs=len(done),
        refused=sum(bool(fate.refusal) for fate in outcome.fates),
        avg_jct_s=_mean(jct),
        p50_jct_s=_percentile(jct, 50),
        p99_jct_s=_percentile(jct, 99),
        avg_wait_s=_mean(waits),
        p99_wait_s=_percentile(waits, 99),
        makespan_s=makespan_s,
        utilization=utilization,
        backlog_utilization=backlog_utilization,
        preemptions=sum(fate.preemptions for fate in done),
        lost_work_s=sum(fate.lost_gpu_s for fate in done),
        worst_tenant_slowdown=float(slowdowns.max()) if len(slowdowns) else 0.0,
        fairness_index=float(slowdowns.sum() ** 2 / (len(slowdowns) * (slowdowns**2).sum())) if len(slowdowns) else 1.0,
        missed_deadlines=sum(
            fate.job.deadline_s is not None and fate.finished_s > fate.job.deadline_s for fate in done
        ),
        cycles=outcome.cycles,
        tenants=tenants,
    )


def figures(report: Report) -> dict[str, object]:
    """Return a report as JSON values."""
    return asdict(report)


def _tenant(name: str, fates: list[Fate], work_gpu_s: float) -> TenantReport:
    jct = np.array([fate.finished_s - fate.job.submit_s for fate in fates])
    runtime = np.array([max(fate.job.duration_s, SLOWDOWN_FLOOR_S) for fate in fates])
    own = sum(fate.job.duration_s * fate.job.num_gpus for fate in fates)
    return TenantReport(
        tenant=name,
        jobs=len(fates),
        avg_jct_s=_mean(jct),
        avg_wait_s=_mean(np.array([fate.waited_s for fate in fates])),
        slowdown=_mean(np.maximum(jct / runtime, 1.0)),
        gpu_share=own / work_gpu_s,
    )


def _utilizations(outcome: Outcome, makespan_s: float) -> tuple[float, float]:
    if not len(outcome.times_s) or makespan_s <= 0.0:
        return 0.0, 0.0
    spans = np.diff(np.append(outcome.times_s, makespan_s)).clip(min=0.0)
    used = outcome.busy_gpus * spans
    loaded = (outcome.backlog_gpus > 0.0) & (outcome.backlog_gpus >= outcome.num_gpus - outcome.busy_gpus)
    loaded_s = float(spans[loaded].sum())
    backlog = float(used[loaded].sum()) / (outcome.num_gpus * loaded_s) if loaded_s else 0.0
    return float(used.sum()) / (outcome.num_gpus * makespan_s), backlog


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def _percentile(values: Floats, percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else 0.0
