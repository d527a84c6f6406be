"""One training run on the cluster: its gang of workers under Ray Train, and its outcome as the driver sees it.

The driver prepares the corpus, starts the gang and follows its progress; the workers train, measure and export. They
share nothing but the run's folder, which every node must see under the same path.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.constants import HEALTH_CHECK_INTERVAL_S_ENV_VAR
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.exceptions import TrainingFailedError

from mlaas.errors import MlaasError, TrainingError
from mlaas.training.folder import RunFolder
from mlaas.training.gang import GangSource
from mlaas.training.leaving import LeaveRequest
from mlaas.training.progress import Entry, Progress, ProgressReader
from mlaas.training.recipes import Recipe, parse_recipe

_FOLLOW_INTERVAL_S = 0.2
_NODE_ID_LABEL = "ray.io/node-id"


def train_on_cluster(
    *, recipe: Recipe, folder: RunFolder, device: str, gang: GangSource, on_entry: Callable[[Entry], None]
) -> float:
    """Train, measure and export on the cluster that this process is connected to.

    When the gang is asked back, the workers checkpoint and leave, and the run goes on with the next one. To be called
    in the main thread, where Ray Train can be interrupted.

    Args:
        recipe: what to do.
        folder: the run's folder, with its corpus prepared; seen by every node under the same path.
        device: `cpu` or `gpu`, as `choose_device` says.
        gang: where to train, and with how many workers.
        on_entry: called in this process with each line of progress, those of earlier attempts first.

    Returns:
        The total cost of the validation split in bits.

    Raises:
        CheckpointError: a checkpoint could not be written.
        TrainingError: the gang failed more often than the recipe allows.
    """
    # Ray Train takes its pace from nowhere else: it sees that the workers have left when it next looks at them.
    os.environ.setdefault(HEALTH_CHECK_INTERVAL_S_ENV_VAR, str(_FOLLOW_INTERVAL_S))  # noqa: TID251
    driver = _Driver(folder, gang=gang, on_entry=on_entry)
    folder.measure.unlink(missing_ok=True)
    while True:
        gang.hand_over()
        with driver.following():
            _fit(_trainer(recipe, folder=folder, device=device, gang=gang), folder=folder, gang=gang)
        if folder.measure.exists():
            break
        gang.yield_and_wait()
    measured: dict[str, float] = json.loads(folder.measure.read_text(encoding="utf-8"))
    return measured["validation_bits"]


def choose_device(recipe: Recipe) -> str:
    """Return `gpu` or `cpu`: what the recipe says, or what the cluster has for all of its workers."""
    if recipe.gang.device != "auto":
        return recipe.gang.device
    return "gpu" if ray.cluster_resources().get("GPU", 0) >= recipe.gang.workers else "cpu"


def _trainer(recipe: Recipe, *, folder: RunFolder, device: str, gang: GangSource) -> TorchTrainer:
    """Return what runs one gang, on its nodes, until the run is finished or its workers have left."""
    nodes = gang.node_ids()
    return TorchTrainer(
        _work,
        train_loop_config={"recipe": recipe.model_dump(mode="json"), "folder": str(folder.path)},
        torch_config=TorchConfig(backend="nccl" if device == "gpu" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=gang.num_workers,
            use_gpu=device == "gpu",
            resources_per_worker={"CPU": recipe.gang.threads} | ({"GPU": 1} if device == "gpu" else {}),
            label_selector=[{_NODE_ID_LABEL: node} for node in nodes] if nodes else None,
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


def _fit(trainer: TorchTrainer, *, folder: RunFolder, gang: GangSource) -> None:
    """Wait until the workers of a gang have ended, by themselves or since the gang was lost."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except (SystemExit, KeyboardInterrupt, RayError):
        if not gang.is_lost:
            raise
    except TrainingFailedError as error:
        if not gang.is_lost:
            raise _explain(error, folder=folder) from error
    finally:
        signal.signal(signal.SIGINT, on_interrupt)  # Ray Train leaves its own, which would end the next one's process


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


class _Driver:
    """The driver's part while a gang runs: passes progress on, and the request to leave."""

    def __init__(self, folder: RunFolder, *, gang: GangSource, on_entry: Callable[[Entry], None]) -> None:
        self._leave = LeaveRequest(folder.leave_request)
        self._reader = ProgressReader(folder.progress)
        self._gang = gang
        self._on_entry = on_entry

    @contextmanager
    def following(self) -> Iterator[None]:
        """Do it while the block runs, and pass on what is left after it."""
        ended = threading.Event()
        self._leave.withdraw()
        follower = threading.Thread(target=self._follow, args=(ended,), name="progress", daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
            self._pass_on()

    def _follow(self, ended: threading.Event) -> None:
        is_asked = False
        while not ended.wait(_FOLLOW_INTERVAL_S):
            self._pass_on()
            if self._gang.is_lost:
                # What Ray Train does on an interrupt is the one way to end its workers from outside.
                os.kill(os.getpid(), signal.SIGINT)
                return
            if not is_asked and self._gang.yield_signal() is not None:
                is_asked = True
                self._leave.make()

    def _pass_on(self) -> None:
        entries = self._reader.read_new()
        for entry in entries:
            self._on_entry(entry)
        progress = [entry.event for entry in entries if isinstance(entry.event, Progress)]
        if progress:
            self._gang.report(done=progress[-1].step / progress[-1].steps, left_s=progress[-1].eta_s)


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
