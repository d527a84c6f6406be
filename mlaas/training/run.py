"""One training run on the cluster: its folder, its gang of workers, and its outcome as the driver sees it.

The driver prepares the corpus, starts the gang and follows its progress; the workers train, measure and export. They
share nothing but the run's folder, which every node must see under the same path.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.exceptions import TrainingFailedError
from tokenizers import Tokenizer

from mlaas.errors import MlaasError, TrainingError
from mlaas.training.data import Corpus, TokenizedSplit, save_corpus_record, tokenize, train_tokenizer
from mlaas.training.progress import Entry, ProgressFile, ProgressReader
from mlaas.training.recipes import Recipe, fingerprint, parse_recipe

_FOLLOW_INTERVAL_S = 0.5


@dataclass(frozen=True)
class RunFolder:
    """Everything that a run has on disk."""

    path: Path

    @property
    def corpus(self) -> Path:
        """Tokens of both splits, tokenizer and record."""
        return self.path / "corpus"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer, written last of the corpus: its presence means that the rest is whole."""
        return self.corpus / "tokenizer.json"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints."""
        return self.path / "checkpoints"

    @property
    def progress(self) -> Path:
        """Progress, as `mlaas.training.progress` writes it."""
        return self.path / "progress.jsonl"

    @property
    def model(self) -> Path:
        """The exported model."""
        return self.path / "model"

    @property
    def measure(self) -> Path:
        """What the gang measured of the exported model."""
        return self.path / "measure.json"

    @property
    def report(self) -> Path:
        """Charts and table, as they are uploaded."""
        return self.path / "report"

    @property
    def result(self) -> Path:
        """The outcome, written last: its presence means that the run is finished."""
        return self.path / "result.json"


def open_run(runs_dir: Path, *, recipe: Recipe, data_hash: str) -> RunFolder:
    """Return the unfinished run of this recipe on these data, or a new one with the next number."""
    family = runs_dir / f"{recipe.name}-{fingerprint(recipe, data_hash=data_hash)}"
    numbers = sorted(int(path.name) for path in family.glob("*") if path.name.isdigit())
    last = numbers[-1] if numbers else 0
    if not last or RunFolder(family / str(last)).result.exists():
        last += 1
    folder = RunFolder(family / str(last))
    folder.path.mkdir(parents=True, exist_ok=True)
    return folder


def prepare_corpus(corpus: Corpus, *, recipe: Recipe, folder: RunFolder) -> None:
    """Train the tokenizer and tokenize both splits into the run's folder, unless an earlier attempt did."""
    if folder.tokenizer.exists():
        return
    folder.corpus.mkdir(exist_ok=True)
    tokenizer = train_tokenizer(corpus.training, vocab_size=recipe.data.vocab_size)
    tokenize(corpus.training, tokenizer=tokenizer).save(folder.corpus / "training")
    tokenize(corpus.validation, tokenizer=tokenizer).save(folder.corpus / "validation")
    save_corpus_record(corpus, folder.corpus / "corpus.json")
    replace_text(folder.tokenizer, tokenizer.to_str())


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
    """What each worker of the gang runs."""
    import torch
    import torch.distributed as dist
    from ray.train.torch import get_device

    from mlaas.training.checkpoint import CheckpointStore
    from mlaas.training.data import PackedSequences, end_of_text_id
    from mlaas.training.evaluate import measure_bits
    from mlaas.training.export import export_model
    from mlaas.training.loop import quiet_libraries, start_engine, train
    from mlaas.training.model import build_model, use_cpu_kernels

    quiet_libraries()
    recipe = parse_recipe(config["recipe"], origin="of the run")
    folder = RunFolder(Path(config["folder"]))
    tokenizer = Tokenizer.from_file(str(folder.tokenizer))
    end_token = end_of_text_id(tokenizer)
    model = build_model(
        recipe.model, vocab_size=tokenizer.get_vocab_size(), end_token=end_token, seed=recipe.train.seed
    )
    if config["device"] == "cpu":
        torch.set_num_threads(recipe.gang.threads)
        use_cpu_kernels(model)
    train(
        start_engine(recipe, model=model),
        recipe=recipe,
        sequences=PackedSequences(
            TokenizedSplit.load(folder.corpus / "training"), length=recipe.model.context, seed=recipe.train.seed
        ),
        checkpoints=CheckpointStore(folder.checkpoints, keep=recipe.checkpoint.keep),
        reporter=ProgressFile(folder.progress),
    )
    bits = measure_bits(
        model,
        tokens=TokenizedSplit.load(folder.corpus / "validation").tokens,
        end_token=end_token,
        length=recipe.model.context,
        device=get_device(),
    )
    if dist.get_rank() == 0:
        export_model(model, tokenizer=tokenizer, folder=folder.model)
        replace_text(folder.measure, json.dumps({"validation_bits": bits}))


def replace_text(path: Path, text: str) -> None:
    """Write a file so that it is whole or absent."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


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
