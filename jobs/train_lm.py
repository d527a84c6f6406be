"""Train a language model, measure it, register it: `python -m jobs.train_lm --recipe jobs/recipes/stdlib_tiny.toml`."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlaas.errors import MlaasError
from mlaas.scheduler.leases.holder import lease
from mlaas.scheduler.requests.spec import WorkloadSpec
from mlaas.scheduler.types import DEFAULT_QUEUE, Gang, Kind, Resources
from mlaas.settings import load_settings
from mlaas.training.recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from mlaas.training.gang import GangSource


def main() -> int:
    """Run the job; the last line that it prints is its outcome as JSON."""
    parser = argparse.ArgumentParser(prog="python -m jobs.train_lm", description=main.__doc__)
    parser.add_argument(
        "--recipe", type=Path, required=True, help="TOML file of the run; see mlaas/training/recipes.py"
    )
    parser.add_argument("--queue", default=DEFAULT_QUEUE, help="queue that its gang waits in, unless it is placed")
    arguments = parser.parse_args()
    try:
        _train(load_recipe(arguments.recipe), queue=arguments.queue)
    except MlaasError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _train(recipe: Recipe, *, queue: str) -> None:
    import ray

    from mlaas.scheduler.on_ray.coordinator import take_coordinators_place
    from mlaas.training.service import train_and_register

    def lend(recipe: Recipe, *, device: str) -> AbstractContextManager[GangSource]:
        return lease(_spec(recipe, device=device, queue=queue), say=_say)

    ray.init(logging_level="warning")
    take_coordinators_place()
    outcome = train_and_register(recipe, settings=load_settings(), gangs=lend, say=_say)
    ray.shutdown()  # what the cluster still has to say comes first, so that the outcome is the last line
    print(outcome.table())
    print(f"registered {outcome.model} version {outcome.version} as champion")
    print(json.dumps(asdict(outcome)), flush=True)


def _spec(recipe: Recipe, *, device: str, queue: str) -> WorkloadSpec:
    """Return what the recipe asks of the scheduler."""
    return WorkloadSpec(
        kind=Kind.TRAIN,
        name=recipe.name,
        queue=queue,
        estimate_s=recipe.train.max_minutes * 60 or None,
        gang=Gang(
            worker=Resources(gpus=float(device == "gpu"), cpus=float(recipe.gang.threads)),
            min_workers=recipe.gang.min_workers or recipe.gang.workers,
            max_workers=recipe.gang.workers,
        ),
    )


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
