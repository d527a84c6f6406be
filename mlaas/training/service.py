"""The whole of a training job: corpus, gang, measure, record, registration. It resumes what an attempt left."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from mlflow.entities import Metric

from mlaas.errors import PlatformError
from mlaas.settings import Settings
from mlaas.tracking.lineage import git_commit
from mlaas.tracking.registry import CHAMPION, Registry
from mlaas.tracking.runs import RunLog
from mlaas.training.charts import draw_bits, draw_loss
from mlaas.training.data import Corpus, load_corpus
from mlaas.training.evaluate import compress_bits
from mlaas.training.folder import RunFolder, hold, open_run, prepare_corpus, replace_text
from mlaas.training.gang import Gangs
from mlaas.training.progress import Entry, Left, Progress, Resumed, read_curve
from mlaas.training.recipes import Recipe
from mlaas.training.run import choose_device, train_on_cluster


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training job made."""

    model: str
    """Name of the registered model."""
    version: int
    """Its version."""
    run_id: str
    """MLflow run."""
    folder: str
    """The run's folder."""
    bits_per_byte: dict[str, float]
    """Of the model, gzip and xz, on the same held-out files."""
    steps: int
    """Optimizer steps."""
    train_s: float
    """Training time over all resumes."""
    data_hash: str
    """SHA-256 of the data."""
    git_commit: str
    """Commit of the code."""

    def table(self) -> str:
        """Return bits per byte as lines of text."""
        return "\n".join(
            ["bits per byte on held-out files (lower is better)"]
            + [f"  {name:<8} {bits:.3f}" for name, bits in self.bits_per_byte.items()]
        )


def train_and_register(recipe: Recipe, *, settings: Settings, gangs: Gangs, say: Callable[[str], None]) -> Outcome:
    """Train a recipe on the cluster that this process is connected to, and register the model as champion.

    Args:
        recipe: what to do.
        settings: the instance, for its folders and its MLflow server.
        gangs: lends the gang to train on: once the data are prepared, until the model is exported.
        say: shows one line to the user.

    Raises:
        DataError: there is no text to learn from.
        Conflict: another job trains this very run.
        CheckpointError: a checkpoint could not be written.
        TrainingError: the gang failed more often than the recipe allows.
        PlatformError: MLflow's server does not answer.
    """
    say(f"recipe {recipe.name}: reading the data")
    corpus = load_corpus(recipe.data)
    say(f"  {corpus.describe()}")
    folder = open_run(settings.runs_dir, recipe=recipe, data_hash=corpus.data_hash)
    with hold(folder):
        say(f"run {folder.path}")
        return _train_and_register(recipe, corpus=corpus, folder=folder, settings=settings, gangs=gangs, say=say)


def _train_and_register(
    recipe: Recipe,
    *,
    corpus: Corpus,
    folder: RunFolder,
    settings: Settings,
    gangs: Gangs,
    say: Callable[[str], None],
) -> Outcome:
    run = RunLog.open(settings.tracking_uri, experiment=recipe.name, folder=folder.path)
    run.log_params(_flatten(recipe.model_dump()))
    run.log_tags({"data_hash": corpus.data_hash, "git_commit": git_commit()})
    try:
        prepare_corpus(corpus, recipe=recipe, folder=folder)
        narrator = _Narrator(run, say=say)
        device = choose_device(recipe)
        with gangs(recipe, device=device) as gang:
            bits = train_on_cluster(recipe=recipe, folder=folder, device=device, gang=gang, on_entry=narrator)
        narrator.catch_up()
        outcome = _conclude(recipe, corpus=corpus, folder=folder, run=run, model_bits=bits, settings=settings)
    except BaseException:
        with suppress(PlatformError):
            run.finish(failed=True)
        raise
    run.finish()
    return outcome


class _Narrator:
    """Passes progress on to the user and to MLflow.

    Lines of an earlier attempt come again after a resume: MLflow keeps equal values once, and the user sees the story
    so far. A server that is away for a while costs nothing: what it missed is sent at the end.
    """

    def __init__(self, run: RunLog, *, say: Callable[[str], None]) -> None:
        self._run = run
        self._say = say
        self._missed: list[Metric] = []

    def __call__(self, entry: Entry) -> None:
        if isinstance(entry.event, Resumed):
            if entry.event.step:
                self._say(f"resumed after step {entry.event.step}, from its checkpoint")
            return
        if isinstance(entry.event, Left):
            self._say(f"left after step {entry.event.step}: its checkpoint is written")
            return
        self._say(entry.event.describe())
        metrics = _metrics(entry.event, time_ms=entry.time_ms)
        try:
            self._run.log_metrics(metrics)
        except PlatformError as error:
            if not self._missed:
                self._say(f"{error}; training goes on, and the metrics follow at its end")
            self._missed += metrics

    def catch_up(self) -> None:
        """Send the metrics that the server missed.

        Raises:
            PlatformError: it still does not answer.
        """
        self._run.log_metrics(self._missed)


def _metrics(progress: Progress, *, time_ms: int) -> list[Metric]:
    values = {"loss": progress.loss, "learning_rate": progress.learning_rate, "tokens_per_s": progress.tokens_per_s}
    return [Metric(name, value, time_ms, progress.step) for name, value in values.items()]


def _conclude(
    recipe: Recipe, *, corpus: Corpus, folder: RunFolder, run: RunLog, model_bits: float, settings: Settings
) -> Outcome:
    """Compare, draw, upload and register; each part may be done again."""
    content = b"".join(document.content for document in corpus.validation)
    bits = {"model": model_bits, **compress_bits(content)}
    bits_per_byte = {name: value / len(content) for name, value in bits.items()}
    curve = read_curve(folder.progress)
    last = curve[-1]
    now_ms = time.time_ns() // 1_000_000
    run.log_metrics([Metric(f"bits_per_byte.{name}", v, now_ms, last.step) for name, v in bits_per_byte.items()])
    _write_report(folder, title=recipe.name, curve=curve, bits_per_byte=bits_per_byte)
    run.log_files(folder.report)
    commit = git_commit()
    tags = {"data_hash": corpus.data_hash, "git_commit": commit, "recipe": recipe.model_dump_json()}
    tags |= {f"bits_per_byte.{name}": f"{value:.4f}" for name, value in bits_per_byte.items()}
    registry = Registry(settings.tracking_uri)
    version = registry.register(recipe.name, folder.model, run_id=run.run_id, tags=tags)
    registry.set_alias(recipe.name, CHAMPION, version=version)
    outcome = Outcome(
        model=recipe.name,
        version=version,
        run_id=run.run_id,
        folder=str(folder.path),
        bits_per_byte=bits_per_byte,
        steps=last.step,
        train_s=last.elapsed_s,
        data_hash=corpus.data_hash,
        git_commit=commit,
    )
    replace_text(folder.result, json.dumps(asdict(outcome), indent=1))
    return outcome


def _write_report(folder: RunFolder, *, title: str, curve: list[Progress], bits_per_byte: dict[str, float]) -> None:
    """Draw the charts and write the table, beside a copy of the corpus's record."""
    folder.report.mkdir(exist_ok=True)
    draw_loss(curve, title=f"{title}: training loss", path=folder.report / "loss.png")
    draw_bits(bits_per_byte, title=title, path=folder.report / "bits_per_byte.png")
    (folder.report / "bits_per_byte.json").write_text(json.dumps(bits_per_byte, indent=1), encoding="utf-8")
    shutil.copy(folder.corpus / "corpus.json", folder.report / "corpus.json")


def _flatten(tree: dict[str, Any], *, prefix: str = "") -> dict[str, object]:
    """Return nested fields by dotted names."""
    flat: dict[str, object] = {}
    for name, value in tree.items():
        flat |= _flatten(value, prefix=f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
