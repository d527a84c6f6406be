"""How soon serving has its machines once the SLO is broken, and training has them back once traffic has gone.

python -m benchmarks.scheduler.slo_break [--rounds 5] [--checkpoint-s 0.5] [--hold-s 3]

A Ray cluster of two nodes on this machine is full of one training gang, which checkpoints for so long when it is asked
to yield. The router reports a queue that two replicas more would take. Measured from that report: until the trainer is
told, until the machines are free (booked for serving, the gang and its group gone), and until a process runs on each.
Engines, which take long to boot, are stood in for by actors of the same size.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from mlaas.scheduler.requests.spec import WorkloadSpec
from mlaas.scheduler.types import Gang, Resources
from tests.fakes.sharing_world import SharingWorld, share, trainer

sys.path.insert(0, str(Path(__file__).parent))
from results import write_result  # beside this script, which runs as a module for the fakes


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoint-s", type=float, default=0.5)
    parser.add_argument("--hold-s", type=float, default=3.0)
    arguments = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    try:
        cluster.wait_for_nodes()
        rows = asyncio.run(measure(arguments.rounds, checkpoint_s=arguments.checkpoint_s, hold_s=arguments.hold_s))
    finally:
        ray.shutdown()
        cluster.shutdown()
    medians = {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}
    print("median", medians)
    write_result("slo_break", {"checkpoint_s": arguments.checkpoint_s, "rounds": rows, "median": medians})


async def measure(rounds: int, *, checkpoint_s: float, hold_s: float) -> list[dict[str, float]]:
    """Break the SLO and let traffic go, again and again."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        async with SharingWorld(Path(folder), share(hold_s=hold_s)) as world:
            await world.until_ready(1)
            gang = Gang(Resources(cpus=1.0), min_workers=3, max_workers=3)
            spec = WorkloadSpec(gang=gang, command=trainer(checkpoint_s=checkpoint_s))
            (train,) = await world.service.submit(spec, tenant="ann")
            for _ in range(rounds):
                await world.until_state(train.id, "running")
                rows.append(await _round(world, train.id))
                print(rows[-1])
    return rows


async def _round(world: SharingWorld, train_id: str) -> dict[str, float]:
    broken_s = time.monotonic()
    world.ask(3, waiting=50)
    await world.until_state(train_id, "yielding")
    told_s = time.monotonic()
    await world.until_ready(3)
    ready_s = time.monotonic()
    freed_s = max(world.replicas.freed_s.values())
    world.ask(1)
    await world.until_state(train_id, "running")
    return {
        "told_s": round(told_s - broken_s, 2),
        "freed_s": round(freed_s - broken_s, 2),
        "process_runs_s": round(ready_s - broken_s, 2),
        "training_back_s": round(time.monotonic() - ready_s, 2),
    }


if __name__ == "__main__":
    main()
