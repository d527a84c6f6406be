"""The folder of one run: where everything is, which one is resumed, and the corpus that it starts from."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlaas.errors import Conflict
from mlaas.training.data import Corpus, save_corpus_record, tokenize, train_tokenizer
from mlaas.training.recipes import Recipe, fingerprint


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
    def leave_request(self) -> Path:
        """Whether the workers are to leave, as the driver says it to them."""
        return self.path / "leave"

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


@contextmanager
def hold(folder: RunFolder) -> Iterator[None]:
    """Keep other drivers out of a run; the lock ends with this process, however that ends.

    Raises:
        Conflict: another job trains this very run.
    """
    with (folder.path / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = f"run {folder.path} is being trained by another job; see `mlaas jobs`, or change the recipe"
            raise Conflict("run_taken", text) from error
        yield


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


def replace_text(path: Path, text: str) -> None:
    """Write a file so that it is whole or absent."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)
