"""One training run on the cluster: its gang of workers under Ray Train, and its outcome as the driver sees it.

The driver prepares the corpus, starts the gang and follows its progress; the workers train, measure and export. They
share nothing but the run's folder, which every node must see under the same path.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.exceptions import TrainingFailedError

from mlaas.errors import MlaasError, TrainingError
from mlaas.training.folder import RunFolder
from mlaas.training.progress import Entry, ProgressReader
from mlaas.training.recipes import Recipe, parse_recipe

_FOLLOW_INTERVAL_S = 0.5


def train_on_cluster(*, recipe: Recipe, folder: RunFolder, on_entry: Callable[[Entry], None]) -> float:
    """Train, measure and export on the cluster that this process is connected to.

    Args:
        recipe: what to do.
        folder: the run's folder, with its corpus prepared; seen by every node under the same path.
        on_entry: called in this process with each line of progress, those of earlier attempts first.

    Returns:
        The total cost of the validation split in bits.

    Raises:
        CheckpointError: a checkpoint could not be written.
        TrainingError: the gang failed more often than the recipe allows.
    """
    device = _choose_device(recipe)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"recipe": recipe.model_dump(mode="json"), "folder": str(folder.path), "device": device},
        torch_config=TorchConfig(backend="nccl" if device == "gpu" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=recipe.gang.workers,
            use_gpu=device == "gpu",
            resources_per_worker={"CPU": recipe.gang.threads},
        ),
        run_config=RunConfig(
            name=folder.path.name,
            storage_path=str(folder.path / "ray"),
            failure_config=FailureConfig(max_failures=recipe.gang.max_restarts),
            callbacks=[_FailFast()],
            logging_config=LoggingConfig(log_level="WARNING"),
            worker_runtime_env={"env_vars": {"DS_ACCELERATOR": "cuda" if device == "gpu" else "cpu"}},
        ),
    )
    with _following(folder.progress, on_entry):
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _explain(error, folder=folder) from error
    measured: dict[str, float] = json.loads(folder.measure.read_text(encoding="utf-8"))
    return measured["validation_bits"]


class _FailFast(UserCallback):
    """Ends the run at once when a worker raises an error of ours, which another attempt would only meet again."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if ours := _find_ours(error):
                raise ours


def _work(config: dict[str, Any]) -> None:
    """What Ray Train runs in each worker."""
    from ray.train.torch import get_device

    from mlaas.training.worker import run_worker

    recipe = parse_recipe(config["recipe"], origin="of the run")
    run_worker(recipe, folder=RunFolder(Path(config["folder"])), device=get_device())


def _choose_device(recipe: Recipe) -> str:
    if recipe.gang.device != "auto":
        return recipe.gang.device
    return "gpu" if ray.cluster_resources().get("GPU", 0) >= recipe.gang.workers else "cpu"


@contextmanager
def _following(path: Path, on_entry: Callable[[Entry], None]) -> Iterator[None]:
    """Pass each line of progress on while the block runs, and what is left after it."""
    reader, ended = ProgressReader(path), threading.Event()

    def pass_on() -> None:
        for entry in reader.read_new():
            on_entry(entry)

    def follow() -> None:
        while not ended.wait(_FOLLOW_INTERVAL_S):
            pass_on()

    follower = threading.Thread(target=follow, name="progress", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
        pass_on()


def _explain(error: TrainingFailedError, *, folder: RunFolder) -> MlaasError:
    if ours := _find_ours(error):
        return ours
    return TrainingError(
        "training_failed", f"the gang failed for good: {error}\nits run is {folder.path}; submit again to resume it"
    )


def _find_ours(error: BaseException) -> MlaasError | None:
    """Return the error of ours that one of Ray Train's wraps, if any."""
    if isinstance(error, MlaasError):
        return error
    wrapped = [getattr(error, name, None) for name in ("_base_exc", "controller_failure", "__cause__")]
    inner = [*wrapped, *getattr(error, "worker_failures", {}).values()]
    return next((found for e in inner if isinstance(e, BaseException) if (found := _find_ours(e))), None)
