"""Train a language model, measure it, register it: `python -m jobs.train_lm --recipe jobs/recipes/stdlib_tiny.toml`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from mlaas.errors import MlaasError
from mlaas.settings import load_settings
from mlaas.training.recipes import Recipe, load_recipe


def main() -> int:
    """Run the job; the last line that it prints is its outcome as JSON."""
    parser = argparse.ArgumentParser(prog="python -m jobs.train_lm", description=main.__doc__)
    parser.add_argument(
        "--recipe", type=Path, required=True, help="TOML file of the run; see mlaas/training/recipes.py"
    )
    try:
        _train(load_recipe(parser.parse_args().recipe))
    except MlaasError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _train(recipe: Recipe) -> None:
    import ray

    from mlaas.training.gang import own_gang
    from mlaas.training.service import train_and_register

    ray.init(logging_level="warning")
    outcome = train_and_register(
        recipe, settings=load_settings(), gangs=own_gang, say=lambda line: print(line, flush=True)
    )
    ray.shutdown()  # what the cluster still has to say comes first, so that the outcome is the last line
    print(outcome.table())
    print(f"registered {outcome.model} version {outcome.version} as champion")
    print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
