"""A run that leaves when it is asked to and goes on with another number of workers, as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
from itertools import count
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from mlaas.platform.processes import free_port
from mlaas.training.progress import Left, Progress, ProgressFile, ProgressReader, Resumed, read_curve
from mlaas.training.recipes import Recipe, parse_recipe

STEPS = 12


def recipe(*, optimizer: str, zero_stage: int, workers: int) -> Recipe:
    model = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 2, "mlp_width": 64, "context": 16}
    train = {"steps": STEPS, "sequences": 8, "log_every": 1, "optimizer": optimizer, "zero_stage": zero_stage}
    train |= {"learning_rate": 0.05 if optimizer == "muon" else 0.01}
    sections = {"model": model, "train": train, "checkpoint": {"every_steps": 5}, "gang": {"workers": workers}}
    return parse_recipe({"name": "m", **sections}, origin="of the test")


def work(rank: int, port: int, folder: Path, recipe: Recipe, leave_at_step: int | None) -> None:
    """Be one worker of a run: all that `worker.run_worker` does but the corpus and the export."""
    import torch
    import torch.distributed as dist

    from mlaas.training.checkpoint import CheckpointStore
    from mlaas.training.data import PackedSequences, TokenizedSplit
    from mlaas.training.loop import quiet_libraries, start_engine, train
    from mlaas.training.model import build_model

    size = recipe.gang.workers
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "DS_ACCELERATOR": "cpu"}
    quiet_libraries()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    tokens = (np.arange(4000) ** 2 % 89).astype(np.uint16)
    split = TokenizedSplit(tokens=tokens, starts=np.array([0]))
    checkpoints = CheckpointStore(folder / "checkpoints", keep=2)
    newest = checkpoints.latest_good()
    steps = count(newest.step if newest else 0)
    model = build_model(recipe.model, vocab_size=300, end_token=0, seed=1)
    train(
        start_engine(recipe, model=model),
        recipe=recipe,
        sequences=PackedSequences(split, length=16, seed=1),
        checkpoints=checkpoints,
        reporter=ProgressFile(folder / "progress.jsonl"),
        is_asked_to_leave=lambda: next(steps) == leave_at_step,
    )
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    """Processes that begin with everything heavy imported."""
    context = multiprocessing.get_context("forkserver")
    heavy = ["mlaas.training.loop", "mlaas.training.model", "deepspeed.runtime.zero.muon.muon_optimizer"]
    context.set_forkserver_preload(heavy)
    return context


class Run:
    """One folder, trained by one number of workers after another."""

    def __init__(self, forks: ForkServerContext, folder: Path, *, optimizer: str, zero_stage: int) -> None:
        self.forks = forks
        self.folder = folder
        self.kind = {"optimizer": optimizer, "zero_stage": zero_stage}
        folder.mkdir()

    def train(self, *, workers: int, leave_at_step: int | None = None) -> Run:
        plan, port = recipe(**self.kind, workers=workers), free_port()
        processes = [
            self.forks.Process(target=work, args=(rank, port, self.folder, plan, leave_at_step))
            for rank in range(workers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
        assert [process.exitcode for process in processes] == [0] * workers
        return self

    @property
    def pauses(self) -> list[object]:
        events = [entry.event for entry in ProgressReader(self.folder / "progress.jsonl").read_new()]
        return [event for event in events if not isinstance(event, Progress)]

    @property
    def losses(self) -> list[float]:
        curve = read_curve(self.folder / "progress.jsonl")
        assert [progress.step for progress in curve] == list(range(1, STEPS + 1)), "a step was lost or done twice"
        return [progress.loss for progress in curve]

    def weights(self) -> np.ndarray:
        """All float32 weights of the last checkpoint, as one row."""
        pieces = {}
        for path in (self.folder / "checkpoints" / f"step-{STEPS:08d}").glob("rank-*"):
            for key, values in load_file(path).items():
                name, kind, start = key.split("/")
                if kind == "weight":
                    pieces[name, int(start)] = values.numpy()
        return np.concatenate([pieces[place] for place in sorted(pieces)])


@pytest.mark.parametrize(("optimizer", "zero_stage"), [("muon", 1), ("adamw", 2)])
def test_two_workers_then_one_then_two_train_as_two_undisturbed(
    forks: ForkServerContext, tmp_path: Path, optimizer: str, zero_stage: int
) -> None:
    straight = Run(forks, tmp_path / "straight", optimizer=optimizer, zero_stage=zero_stage).train(workers=2)
    resized = Run(forks, tmp_path / "resized", optimizer=optimizer, zero_stage=zero_stage)
    resized.train(workers=2, leave_at_step=3).train(workers=1, leave_at_step=7).train(workers=2)
    pauses = [Resumed(step=0), Left(step=3), Resumed(step=3), Left(step=7), Resumed(step=7)]
    assert resized.pauses == pauses
    # The same sequences in the same order: only the order of sums of bfloat16 numbers differs.
    np.testing.assert_allclose(resized.losses, straight.losses, atol=0.07)
    assert straight.losses[-1] < straight.losses[0] - 0.4
    distance = np.linalg.norm(resized.weights() - straight.weights()) / np.linalg.norm(straight.weights())
    assert distance < 0.002, "a run that forgets its momenta ends at ten times that"


def test_on_as_many_workers_a_run_that_left_is_exactly_the_run_that_did_not(
    forks: ForkServerContext, tmp_path: Path
) -> None:
    straight = Run(forks, tmp_path / "straight", optimizer="muon", zero_stage=2).train(workers=2)
    left = Run(forks, tmp_path / "left", optimizer="muon", zero_stage=2)
    left.train(workers=2, leave_at_step=4).train(workers=2)
    assert left.losses == straight.losses
    assert np.array_equal(left.weights(), straight.weights())
