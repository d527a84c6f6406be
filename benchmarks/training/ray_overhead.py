"""Does Ray Train cost throughput? The same workers under Ray Train and as two plain processes, in turns.

Both run `mlaas.training.worker.run_worker` on the shipped recipe, cut to a number of steps. A run's tokens/s is the
median of what its progress file says after the first two reports, so start-up and warm-up count on neither side.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from machine import describe_machine

from mlaas.training.data import load_corpus
from mlaas.training.folder import RunFolder, prepare_corpus
from mlaas.training.progress import read_curve
from mlaas.training.recipes import Recipe, load_recipe, parse_recipe

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "jobs" / "recipes" / "stdlib_tiny.toml"
RESULT = Path(__file__).parent / "results" / "ray_overhead.json"
WARM_UP_REPORTS = 2


def cut_recipe(steps: int) -> Recipe:
    """Return the shipped recipe with fewer steps and no checkpoint before the last."""
    document = load_recipe(SHIPPED).model_dump()
    document["train"] |= {"steps": steps, "max_minutes": 0.0, "log_every": 5}
    document["checkpoint"]["every_steps"] = 5 * steps
    return parse_recipe(document, origin="of the benchmark")


def run_plain(recipe: Recipe, folder: RunFolder) -> None:
    """Run the workers as plain processes that find each other through torch.distributed's variables."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(recipe.gang.workers),
        "OMP_NUM_THREADS": str(recipe.gang.threads),
        "DS_ACCELERATOR": "cpu",
    }
    command = [sys.executable, __file__, "--worker", str(folder.path), "--steps", str(recipe.train.steps)]
    workers = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(recipe.gang.workers)
    ]
    codes = [worker.wait() for worker in workers]
    if any(codes):
        raise SystemExit(f"the plain workers ended with {codes}")


def run_ray(recipe: Recipe, folder: RunFolder) -> None:
    """Run the workers under Ray Train, on a cluster that starts and ends with this call."""
    import ray

    from mlaas.training.gang import OwnGang
    from mlaas.training.run import train_on_cluster

    os.environ.update(RAY_worker_niceness="0")  # As the platform starts Ray; by itself it runs workers at 15.
    ray.init(address="local", num_cpus=2 * recipe.gang.workers, log_to_driver=False, logging_level="error")
    try:
        gang = OwnGang(recipe.gang.workers)
        train_on_cluster(recipe=recipe, folder=folder, device="cpu", gang=gang, on_entry=lambda entry: None)
    finally:
        ray.shutdown()


def measure(run: Callable[[Recipe, RunFolder], None], recipe: Recipe, corpus_folder: Path) -> float:
    """Do one run in a fresh folder and return its tokens/s."""
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path))
        folder.corpus.symlink_to(corpus_folder)
        run(recipe, folder)
        return statistics.median(p.tokens_per_s for p in read_curve(folder.progress)[WARM_UP_REPORTS:])


def work(folder: RunFolder, recipe: Recipe) -> None:
    """Be one of the plain workers."""
    import torch
    import torch.distributed as dist

    from mlaas.training.worker import run_worker

    dist.init_process_group("gloo")
    run_worker(recipe, folder=folder, device=torch.device("cpu"))


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    recipe = cut_recipe(arguments.steps)
    if arguments.worker:
        work(RunFolder(arguments.worker), recipe)
        return
    rates: dict[str, list[float]] = {"ray": [], "plain": []}
    with tempfile.TemporaryDirectory() as path:
        prepared = RunFolder(Path(path))
        prepare_corpus(load_corpus(recipe.data), recipe=recipe, folder=prepared)
        for number in range(arguments.rounds):
            for name, run in (("plain", run_plain), ("ray", run_ray)):
                rates[name].append(round(measure(run, recipe, prepared.corpus), 1))
                print(f"round {number + 1} {name:<5} {rates[name][-1]:,.0f} tokens/s", flush=True)
    ratio = statistics.median(rates["ray"]) / statistics.median(rates["plain"])
    print(f"Ray Train over plain processes: {ratio:.3f}")
    result = {"tokens_per_s": rates, "ratio_of_medians": round(ratio, 4), "steps": arguments.steps}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**result, "machine": describe_machine()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
