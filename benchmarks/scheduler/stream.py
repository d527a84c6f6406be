"""How many workloads a second are decided in a steady stream: some end, as many come, one decision, again.

python benchmarks/scheduler/stream.py [--nodes 1000] [--batches 1,10,100] [--rounds 200]
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
from decision_cycle import apply, build, workload
from results import write_result

from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import POLICIES
from mlaas.scheduler.types import Place


def main() -> None:
    """Measure streams of several batch sizes, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--batches", default="1,10,100")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    rows = []
    for batch in map(int, arguments.batches.split(",")):
        rows.append(measure(nodes=arguments.nodes, batch=batch, rounds=arguments.rounds))
        print(rows[-1])
    write_result("stream", rows)


def measure(*, nodes: int, batch: int, rounds: int) -> dict[str, object]:
    """Let `batch` gangs end and `batch` workloads arrive on a busy cluster, `rounds` times, and time all of it.

    Who arrives is drawn before the clock starts.
    """
    ledger = build("full", nodes=nodes, pending=0)
    rng, ends = np.random.default_rng(11), random.Random(11)
    arrivals = [[workload(rng, f"s{number}-{index}") for index in range(batch)] for number in range(rounds)]
    placed = decided = 0
    cycles_s = []
    started, started_cpu = time.perf_counter(), time.process_time()
    for arriving in arrivals:
        ledger.advance(ledger.now_s + 1.0)
        running = ledger.running.ids
        for workload_id in ends.sample(running, k=min(batch, len(running))):
            ledger.finish(workload_id)
        for each in arriving:
            ledger.submit(each)
        before = time.perf_counter()
        decision = decide(ledger.snapshot(), POLICIES["mlaas"])
        cycles_s.append(time.perf_counter() - before)
        apply(ledger, decision)
        placed += sum(isinstance(action, Place) for action in decision.actions)
        decided += batch
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    return {
        "nodes": nodes,
        "batch": batch,
        "rounds": rounds,
        "placed": placed,
        "waiting_at_the_end": len(ledger.pending),
        "workloads_per_s": round(decided / wall_s),
        "workloads_per_cpu_s": round(decided / cpu_s),
        "decision_p50_ms": round(1e3 * float(np.percentile(cycles_s, 50)), 2),
        "decision_p99_ms": round(1e3 * float(np.percentile(cycles_s, 99)), 2),
    }


if __name__ == "__main__":
    main()
