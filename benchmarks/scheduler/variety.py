"""Policies side by side on traces of other shapes, made here by seed.

python benchmarks/scheduler/variety.py [--jobs 800] [--seeds 2] [--policies sjf,srsf-oracle,mlaas]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from results import write_result

from mlaas.scheduler.decision.ordering import POLICIES
from mlaas.scheduler.simulate.machines import Machines, equal_nodes
from mlaas.scheduler.simulate.replay import Terms, replay
from mlaas.scheduler.simulate.report import summarize
from mlaas.scheduler.simulate.traces import TraceJob
from mlaas.scheduler.types import Queue

if TYPE_CHECKING:
    from collections.abc import Sequence

NODES, GPUS, LOAD = 8, 8, 1.1
MIXED = ((1, 2, 4, 8, 16), (0.7, 0.1, 0.08, 0.1, 0.02))
SHAPES = (
    "mixed", "wide", "fractions", "deadlines", "weights", "bursts", "blind", "no_estimates", "priorities", "elastic",
    "quotas",
)  # fmt: skip
WEIGHTS = (4.0, 2.0, 1.0, 1.0)
GUARANTEES = (24.0, 16.0, 12.0, 12.0)
"""GPUs of each tenant, all there are together. The first asks for more than it may use even with what it borrows."""
MOST_BORROWED = 12.0


def main() -> None:
    """Replay every shape under every policy, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--policies", default="sjf,srsf-oracle,mlaas")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for shape in arguments.shapes.split(","):
        for seed in range(arguments.seeds):
            jobs = trace(shape, seed=seed, count=arguments.jobs)
            for policy in arguments.policies.split(","):
                rows.append({"shape": shape, "seed": seed, **figures(jobs, shape, policy, seed=seed)})
                print(rows[-1], flush=True)
    shapes = arguments.shapes.split(",") if {"sjf", "mlaas"} <= set(arguments.policies.split(",")) else ()
    write_result("variety", {"rows": rows, "over_sjf": [over_sjf(rows, shape) for shape in shapes]})


def trace(shape: str, *, seed: int, count: int) -> list[TraceJob]:
    """Draw a trace that loads the cluster to `LOAD` while jobs arrive."""
    rng = np.random.default_rng(seed)
    widths, odds = {
        "wide": ((1, 8, 16, 32, 64), (0.5, 0.2, 0.15, 0.1, 0.05)),
        "fractions": ((0.25, 0.5, 1, 2, 8), (0.35, 0.25, 0.25, 0.1, 0.05)),
    }.get(shape, MIXED)
    width = rng.choice(widths, size=count, p=odds)
    runtime = np.exp(rng.normal(7.0, 1.8, size=count)).clip(20.0, 3e5)
    gaps = rng.exponential(1.0, size=count)
    if shape == "bursts":
        gaps *= np.where(rng.random(count) < 0.02, 50.0, 0.1)
    submit = np.cumsum(gaps)
    submit *= float((width * runtime).sum()) / (NODES * GPUS * LOAD) / submit[-1]
    jobs = [
        TraceJob(float(submit[n]), float(runtime[n]), float(width[n]), f"t{min(int(rng.exponential(1.0)), 3)}")
        for n in range(count)
    ]
    return [_shaped(job, shape, rng) for job in jobs]


def _shaped(job: TraceJob, shape: str, rng: np.random.Generator) -> TraceJob:
    if shape == "deadlines" and rng.random() < 0.3:
        return replace(job, deadline_s=job.submit_s + job.duration_s * float(rng.uniform(1.5, 6.0)))
    if shape == "priorities":
        return replace(job, priority=int(rng.choice(3, p=(0.8, 0.15, 0.05))))
    if shape == "no_estimates":
        return replace(job, estimate_s=3_600.0)  # the same for all says nothing
    if shape == "elastic" and job.num_gpus >= 2:
        return replace(job, min_gpus=job.num_gpus / 2, max_gpus=job.num_gpus * 2)
    return job


def _queues(shape: str) -> tuple[Queue, ...]:
    """Return the tenants' queues; none where all are equal and share all."""
    if shape == "weights":
        return (Queue("all"), *(Queue(f"t{n}", parent="all", weight=weight) for n, weight in enumerate(WEIGHTS)))
    if shape == "quotas":
        limit = (("GPU", MOST_BORROWED),)
        own = [(("GPU", gpus),) for gpus in GUARANTEES]
        tenants = (Queue(f"t{n}", parent="all", guarantee=own[n], borrowing_limit=limit) for n in range(len(own)))
        return (Queue("all"), *tenants)
    return ()


def figures(jobs: Sequence[TraceJob], shape: str, policy: str, *, seed: int) -> dict[str, object]:
    """Replay one trace under one policy."""
    machines = Machines(equal_nodes(num_nodes=NODES, gpus_per_node=GPUS).nodes, _queues(shape))
    error = 100.0 if shape == "blind" else 3.0
    report = summarize(replay(jobs, machines, POLICIES[policy], Terms(estimate_error=error, seed=seed)))
    return {
        "policy": policy,
        "avg_jct_s": round(report.avg_jct_s),
        "p99_jct_s": round(report.p99_jct_s),
        "backlog_utilization": round(report.backlog_utilization, 3),
        "preemptions": report.preemptions,
        "worst_tenant_slowdown": round(report.worst_tenant_slowdown, 2),
        "missed_deadlines": report.missed_deadlines,
    }


def over_sjf(rows: Sequence[dict[str, Any]], shape: str) -> dict[str, object]:
    """Return our policy over shortest job first on one shape: geometric mean and worst of the seeds."""
    of = {(row["policy"], row["seed"]): row for row in rows if row["shape"] == shape}
    seeds = sorted(seed for policy, seed in of if policy == "mlaas")
    summary: dict[str, object] = {"shape": shape, "seeds": len(seeds)}
    for name in ("avg_jct_s", "p99_jct_s", "worst_tenant_slowdown"):
        ratios = [of["mlaas", seed][name] / of["sjf", seed][name] for seed in seeds]
        summary[name] = [round(float(value), 3) for value in (np.exp(np.log(ratios).mean()), max(ratios))]
    for policy in ("sjf", "mlaas"):
        mine = [of[policy, seed] for seed in seeds]
        summary[policy] = {
            "missed_deadlines": sum(row["missed_deadlines"] for row in mine),
            "backlog_utilization": round(float(np.mean([row["backlog_utilization"] for row in mine])), 3),
        }
    print(summary)
    return summary


if __name__ == "__main__":
    main()
