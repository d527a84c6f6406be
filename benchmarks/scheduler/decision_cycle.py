"""How long one decision takes with ten thousand workloads waiting on a thousand nodes, all rules on.

python benchmarks/scheduler/decision_cycle.py [--nodes 1000] [--pending 10000] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from results import write_result

from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import POLICIES
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import Decision, Gang, Grow, Move, Node, Place, Preempt, Queue, Resources, Shrink, Workload

TENANTS = 50
WIDTHS = ((0.5, 1), (1.0, 1), (2.0, 1), (4.0, 1), (8.0, 1), (8.0, 2), (8.0, 4), (1.0, 16), (8.0, 16))
ODDS = (0.05, 0.6, 0.08, 0.08, 0.1, 0.04, 0.02, 0.02, 0.01)


def main() -> None:
    """Measure every policy in three states of the cluster, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pending", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--policies", default="fifo,easy,sjf,las,fair,mlaas")
    arguments = parser.parse_args()
    rows = []
    for state in ("empty", "full", "half_freed"):
        for policy in arguments.policies.split(","):
            rows.append(
                measure(state, policy, nodes=arguments.nodes, pending=arguments.pending, rounds=arguments.rounds)
            )
            print(rows[-1])
    write_result("decision_cycle", rows)


def measure(state: str, policy: str, *, nodes: int, pending: int, rounds: int) -> dict[str, object]:
    """Time `decide` on one snapshot; the median of `rounds`, by the clock and by the processor."""
    ledger = build(state, nodes=nodes, pending=pending)
    wall, cpu = [], []
    for _ in range(rounds):
        started, started_cpu = time.perf_counter(), time.process_time()
        decision = decide(ledger.snapshot(), POLICIES[policy])
        cpu.append(time.process_time() - started_cpu)
        wall.append(time.perf_counter() - started)
    return {
        "state": state,
        "policy": policy,
        "nodes": nodes,
        "pending": len(ledger.pending),
        "running": len(ledger.running),
        "placed": sum(isinstance(action, Place) for action in decision.actions),
        "preempted": sum(isinstance(action, Preempt) for action in decision.actions),
        "wall_ms": round(1e3 * statistics.median(wall), 1),
        "cpu_ms": round(1e3 * statistics.median(cpu), 1),
    }


def build(state: str, *, nodes: int, pending: int) -> Ledger:
    """Return a cluster in racks with quotas, and its queue.

    `full` has all GPUs taken, `half_freed` has just lost every other gang.
    """
    rng = np.random.default_rng(7)
    machines = [
        Node(f"n{number:04}", Resources(gpus=8, cpus=96.0), labels=(("rack", f"r{number // 20}"),))
        for number in range(nodes)
    ]
    guarantee = nodes * 8 // (2 * TENANTS)
    own = (("GPU", float(guarantee)),)
    queues = [
        Queue("org"),
        *(Queue(f"t{number}", parent="org", guarantee=own) for number in range(TENANTS)),
        Queue("shared", parent="org", guarantee=(("GPU", float(nodes * 4)),)),
    ]
    ledger = Ledger(machines, queues)
    if state != "empty":
        for number in range(8 * nodes):
            ledger.submit(workload(rng, f"r{number}"))
        apply(ledger, decide(ledger.snapshot(), POLICIES["mlaas"]))
        for workload_id in list(ledger.pending.ids):
            ledger.remove(workload_id)
        ledger.advance(4_000.0)
        if state == "half_freed":
            for workload_id in list(ledger.running.ids)[::2]:
                ledger.finish(workload_id)
    for number in range(pending):
        ledger.submit(workload(rng, f"p{number}"))
    return ledger


def workload(rng: np.random.Generator, name: str) -> Workload:
    """Draw a workload: mostly one GPU, some wide, some elastic, some bound to a rack."""
    gpus, workers = WIDTHS[int(rng.choice(len(WIDTHS), p=ODDS))]
    gang = Gang(
        Resources(gpus=gpus, cpus=gpus),
        min_workers=workers,
        max_workers=workers * (2 if workers > 1 and rng.random() < 0.5 else 1),
        topology="rack" if workers in (2, 4) else None,
    )
    tenant = f"t{min(int(rng.exponential(8.0)), TENANTS - 1)}"
    return Workload(
        name, gang, submitted_s=0.0, tenant=tenant, queue=tenant, priority=int(rng.choice(3, p=(0.8, 0.15, 0.05))),
        estimate_s=float(np.exp(rng.normal(7.0, 2.0))), restart_cost_s=60.0,
    )  # fmt: skip


def apply(ledger: Ledger, decision: Decision) -> None:
    """Carry a decision out at once."""
    for action in decision.actions:
        match action:
            case Place():
                ledger.start(action.workload_id, action.placement)
            case Preempt():
                ledger.requeue(action.workload_id)
            case Shrink() | Grow() | Move():
                ledger.resize(action.workload_id, action.placement)


if __name__ == "__main__":
    main()
