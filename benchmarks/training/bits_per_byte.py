"""Does the shipped recipe beat gzip, and in what time? The recipe as it is, on a local Ray cluster of its own."""

import argparse
import json
import tempfile
import time
from pathlib import Path

import ray
from machine import describe_machine

from mlaas.training.data import load_corpus
from mlaas.training.evaluate import compress_bits
from mlaas.training.folder import RunFolder, prepare_corpus
from mlaas.training.gang import OwnGang
from mlaas.training.progress import Progress, read_curve
from mlaas.training.recipes import load_recipe
from mlaas.training.run import choose_device, train_on_cluster

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "bits_per_byte.json"


def main() -> None:
    """Train, compare, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=ROOT / "jobs" / "recipes" / "stdlib_tiny.toml")
    recipe = load_recipe(parser.parse_args().recipe)
    started_s = time.monotonic()
    corpus = load_corpus(recipe.data)
    print(corpus.describe(), flush=True)
    ray.init(address="local", num_cpus=2 * recipe.gang.workers, log_to_driver=False, logging_level="error")
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path))
        prepare_corpus(corpus, recipe=recipe, folder=folder)
        model_bits = train_on_cluster(
            recipe=recipe,
            folder=folder,
            device=choose_device(recipe),
            gang=OwnGang(recipe.gang.workers),
            on_entry=lambda e: print(e.event.describe(), flush=True) if isinstance(e.event, Progress) else None,
        )
        last = read_curve(folder.progress)[-1]
    ray.shutdown()
    content = b"".join(document.content for document in corpus.validation)
    bits = {"model": model_bits, **compress_bits(content)}
    result = {
        "bits_per_byte": {name: round(value / len(content), 4) for name, value in bits.items()},
        "held_out": {"files": len(corpus.validation), "bytes": len(content)},
        "train_s": round(last.elapsed_s, 1),
        "whole_s": round(time.monotonic() - started_s, 1),
        "steps": last.step,
        "tokens": last.step * recipe.train.sequences * recipe.model.context,
        "recipe": recipe.model_dump(),
    }
    print(json.dumps({name: result[name] for name in ("bits_per_byte", "train_s", "whole_s", "steps")}))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**result, "machine": describe_machine()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
