"""Text into packed sequences of tokens: read, split, tokenize, pack.

Shapes: B sequences, T tokens of one sequence.
"""

from __future__ import annotations

import glob
import hashlib
import json
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from mlaas.errors import DataError
from mlaas.training.recipes import DataRecipe

END_OF_TEXT = "<|endoftext|>"
"""Token between two documents: it starts each document's context and ends each answer."""

Tokens = npt.NDArray[np.uint16]

_SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
_PIECES = r"[^\r\n\p{L}\p{N}]?[\p{L}_]+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+(?:\r?\n[ \t]*)*|(?:\r?\n[ \t]*)+|[ \t]+(?!\S)|\s+"
"""Pieces that BPE merges within: a word with the sign before it, up to three digits, and punctuation with the line
breaks and indentation that follow it, which is what makes source code short. Source: the pattern of OpenAI's cl100k,
changed so."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """One file of text."""

    name: str
    """Path relative to the corpus's folder, with forward slashes."""
    content: bytes
    """The file's bytes, valid UTF-8."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """All documents of a run, split by file."""

    origin: str
    """Folder or glob that the documents come from."""
    training: tuple[Document, ...]
    """Documents to learn from, by name."""
    validation: tuple[Document, ...]
    """Documents held out, by name."""
    not_utf8: tuple[str, ...]
    """Files that were skipped since they are not UTF-8."""

    @property
    def data_hash(self) -> str:
        """SHA-256 over the names and contents of both splits."""
        digest = hashlib.sha256()
        for split, documents in (("training", self.training), ("validation", self.validation)):
            for document in documents:
                digest.update(f"{split}\0{document.name}\0{hashlib.sha256(document.content).hexdigest()}\n".encode())
        return digest.hexdigest()

    def describe(self) -> str:
        """Return one line on what was read, skipped and held out."""
        num_bytes = sum(len(document.content) for document in self.training + self.validation)
        skipped = f"; skipped {len(self.not_utf8)} not UTF-8: {_shorten(self.not_utf8)}" if self.not_utf8 else ""
        return (
            f"{len(self.training) + len(self.validation)} files, {num_bytes / 1e6:.1f} MB from {self.origin}; "
            f"{len(self.validation)} files held out{skipped}"
        )


@dataclass(frozen=True, kw_only=True)
class TokenizedSplit:
    """The documents of one split as one row of tokens, each document followed by the end-of-text token."""

    tokens: Tokens
    starts: npt.NDArray[np.int64]
    """Index of each document's first token."""

    def save(self, path: Path) -> None:
        """Write both arrays to `<path>.tokens.npy` and `<path>.starts.npy`."""
        np.save(path.with_suffix(".tokens.npy"), self.tokens, allow_pickle=False)
        np.save(path.with_suffix(".starts.npy"), self.starts, allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> TokenizedSplit:
        """Map the arrays that `save` wrote."""
        return cls(
            tokens=np.load(path.with_suffix(".tokens.npy"), mmap_mode="r", allow_pickle=False),
            starts=np.load(path.with_suffix(".starts.npy"), allow_pickle=False),
        )


def load_corpus(recipe: DataRecipe) -> Corpus:
    """Read and split the recipe's documents.

    Raises:
        DataError: nothing is there, nothing can be read, or one of the splits is empty.
    """
    origin, root, paths = _find_files(recipe.path)
    documents, not_utf8 = [], []
    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError("data_unreadable", f"data.path: {path} cannot be read: {error.strerror}") from error
        if _is_utf8(content):
            documents.append(Document(name=name, content=content))
        else:
            not_utf8.append(name)
    training, validation = split_documents([d for d in documents if d.content], percent=recipe.validation_percent)
    corpus = Corpus(origin=origin, training=training, validation=validation, not_utf8=tuple(not_utf8))
    _require_both_splits(corpus, recipe=recipe)
    return corpus


def split_documents(
    documents: Sequence[Document], *, percent: float
) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    """Split documents into training and validation by a hash of each one's name.

    A document with more than 1 % of all bytes is never held out, unless there are fewer than 100: a measure that one
    file decides says nothing of the others.
    """
    num_bytes = sum(len(document.content) for document in documents)
    limit = num_bytes / 100 if len(documents) >= 100 else num_bytes
    held_out = {d.name for d in documents if _hash_percent(d.name) < percent and len(d.content) <= limit}
    training = tuple(d for d in documents if d.name not in held_out)
    return training, tuple(d for d in documents if d.name in held_out)


def _hash_percent(name: str) -> float:
    """Map a name to an evenly spread number from 0 to 100."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32 * 100


def train_tokenizer(documents: Sequence[Document], *, vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer: any bytes round-trip, nothing is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.content.decode() for document in documents), trainer)
    return tokenizer


def end_of_text_id(tokenizer: Tokenizer) -> int:
    """Return the id of the end-of-text token."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    assert end is not None
    return end


def tokenize(documents: Sequence[Document], *, tokenizer: Tokenizer) -> TokenizedSplit:
    """Encode documents into one row, each followed by the end-of-text token, which nothing inside one becomes."""
    end = end_of_text_id(tokenizer)
    tokenizer.encode_special_tokens = True
    encodings = tokenizer.encode_batch_fast([d.content.decode() for d in documents], add_special_tokens=False)
    rows = [np.array([*encoding.ids, end], dtype=np.uint16) for encoding in encodings]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return TokenizedSplit(tokens=np.concatenate(rows), starts=np.cumsum(lengths) - lengths)


class PackedSequences:
    """An endless, seeded order of full training sequences: no padding, each token predicted once in each epoch.

    The documents are shuffled anew for each epoch and laid end to end without a gap, also from one epoch to the next.
    The row is cut into sequences of T tokens, and the sequences that start in one epoch are shuffled among
    themselves. Everything is a function of (split, seed, index), so a resumed run and one with another number of
    workers see the same order.
    """

    def __init__(self, split: TokenizedSplit, *, length: int, seed: int) -> None:
        self._split = split
        self._length = length
        self._seed = seed
        self._ends = np.append(split.starts[1:], len(split.tokens))
        self._rows: dict[int, Tokens] = {}
        self._orders: dict[int, npt.NDArray[np.int64]] = {}

    def batch(self, first: int, *, count: int) -> npt.NDArray[np.int64]:
        """Return sequences `first` to `first + count` as (B, T + 1).

        The inputs are all but the last token of each, the targets all but the first.
        """
        return np.stack([self._sequence(index) for index in range(first, first + count)]).astype(np.int64)

    def _sequence(self, index: int) -> Tokens:
        total = len(self._split.tokens)
        epoch = index * self._length // total
        first = -(-epoch * total // self._length)
        place = int(self._order(epoch)[index - first])
        position, count, parts = (first + place) * self._length, self._length + 1, []
        while count:
            epoch, offset = divmod(position, total)
            parts.append(self._row(epoch)[offset : offset + count])
            position, count = position + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the order of the sequences that start in the epoch, counted from its first."""
        if epoch not in self._orders:
            total = len(self._split.tokens)
            count = -(-(epoch + 1) * total // self._length) - -(-epoch * total // self._length)
            _forget_before(self._orders, epoch - 1)
            self._orders[epoch] = np.random.default_rng((self._seed, epoch, 1)).permutation(count)
        return self._orders[epoch]

    def _row(self, epoch: int) -> Tokens:
        """Return the documents of the epoch, end to end."""
        if epoch not in self._rows:
            order = np.random.default_rng((self._seed, epoch, 0)).permutation(len(self._ends))
            _forget_before(self._rows, epoch - 1)
            self._rows[epoch] = np.concatenate(
                [self._split.tokens[self._split.starts[i] : self._ends[i]] for i in order]
            )
        return self._rows[epoch]


def _forget_before(cache: dict[int, npt.NDArray[Any]], epoch: int) -> None:
    for old in [key for key in cache if key < epoch]:
        del cache[old]


def save_corpus_record(corpus: Corpus, path: Path) -> None:
    """Write what the corpus holds, by name, as JSON."""
    record = {
        "origin": corpus.origin,
        "data_hash": corpus.data_hash,
        "training": {d.name: len(d.content) for d in corpus.training},
        "validation": {d.name: len(d.content) for d in corpus.validation},
        "not_utf8": list(corpus.not_utf8),
    }
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")


def _find_files(path: str) -> tuple[str, Path, list[Path]]:
    """Return a name for the place, the folder that file names are relative to, and the files."""
    if not path:
        root = Path(sysconfig.get_path("stdlib"))
        files = [p for p in root.rglob("*.py") if not any(_is_test(part) for part in p.relative_to(root).parts)]
        return f"the standard library ({root})", root, sorted(files)
    if glob.has_magic(path):
        fixed = path[: next(i for i, character in enumerate(path) if character in "*?[")]
        root = Path(fixed[: fixed.rfind("/") + 1] or ".")
        matches = [Path(match) for match in glob.iglob(path, recursive=True)]
    else:
        root = Path(path)
        _require_readable(root)
        matches = [p for p in root.rglob("*") if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    return path, root, sorted(match for match in matches if match.is_file())


def _require_readable(folder: Path) -> None:
    try:
        next(folder.iterdir(), None)
    except (FileNotFoundError, NotADirectoryError) as error:
        text = f"data.path = {str(folder)!r} is not a folder; give a folder or a glob of text files"
        raise DataError("data_missing", text) from error
    except OSError as error:
        text = f"data.path = {str(folder)!r} cannot be read: {error.strerror}"
        raise DataError("data_unreadable", text) from error


def _is_test(part: str) -> bool:
    return part in _SKIPPED_FOLDERS or part.startswith("test_")


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _require_both_splits(corpus: Corpus, *, recipe: DataRecipe) -> None:
    where = f"data.path = {recipe.path!r}"
    skipped = f" ({len(corpus.not_utf8)} are not UTF-8: {_shorten(corpus.not_utf8)})" if corpus.not_utf8 else ""
    if not corpus.training and not corpus.validation:
        raise DataError("data_empty", f"{where} holds no text{skipped}; give a folder or a glob of UTF-8 text files")
    if not corpus.training or not corpus.validation:
        empty = "validation" if corpus.training else "training"
        raise DataError(
            "data_split_empty",
            f"{where} leaves the {empty} split empty: {len(corpus.training) + len(corpus.validation)} files at "
            f"data.validation_percent = {recipe.validation_percent:g}{skipped}; add files or change the percentage",
        )


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
