"""Corpus: what is read, what is held out, and that packing loses and repeats nothing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas.errors import DataError
from mlaas.training.data import (
    Document,
    PackedSequences,
    TokenizedSplit,
    end_of_text_id,
    load_corpus,
    split_documents,
    tokenize,
    train_tokenizer,
)
from mlaas.training.recipes import DataRecipe


def write_files(folder: Path, count: int = 40) -> None:
    for i in range(count):
        (folder / f"f{i}.txt").write_text(f"text of file {i}\n" * 5)


def load(path: Path | str, percent: float = 20.0):
    return load_corpus(DataRecipe(path=str(path), validation_percent=percent))


def test_standard_library_without_tests_and_site_packages() -> None:
    corpus = load_corpus(DataRecipe())
    names = [d.name for d in corpus.training + corpus.validation]
    assert "argparse.py" in names
    assert "json/decoder.py" in names
    assert not [name for name in names if "site-packages" in name or "/test/" in f"/{name}" or "/tests/" in f"/{name}"]
    num_bytes = sum(len(d.content) for d in corpus.training + corpus.validation)
    assert all(len(d.content) <= num_bytes / 100 for d in corpus.validation)


def test_folder_and_glob_give_the_same_documents(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.txt").write_text("deep")
    folder, pattern = load(tmp_path), load(tmp_path / "**" / "*.txt")
    assert folder.data_hash == pattern.data_hash
    assert any(d.name == "sub/deep.txt" for d in folder.training + folder.validation)


def test_hash_follows_content_and_names(tmp_path: Path) -> None:
    write_files(tmp_path)
    before = load(tmp_path).data_hash
    (tmp_path / "f0.txt").write_text("changed")
    changed = load(tmp_path).data_hash
    (tmp_path / "f0.txt").rename(tmp_path / "g0.txt")
    assert len({before, changed, load(tmp_path).data_hash}) == 3


def test_files_that_are_not_utf8_are_counted_named_and_skipped(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    corpus = load(tmp_path)
    assert corpus.not_utf8 == ("latin.txt",)
    assert "skipped 1 not UTF-8: latin.txt" in corpus.describe()


@pytest.mark.parametrize("make", ["missing", "empty", "one_file", "only_binary"])
def test_data_that_cannot_be_learned_from(tmp_path: Path, make: str) -> None:
    folder = tmp_path / "data"
    expected = {
        "missing": "is not a folder",
        "empty": "holds no text",
        "one_file": "split empty",
        "only_binary": "1 are not UTF-8: b.txt",
    }[make]
    if make != "missing":
        folder.mkdir()
    if make == "one_file":
        (folder / "a.txt").write_text("alone")
    if make == "only_binary":
        (folder / "b.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=expected) as caught:
        load(folder)
    assert str(folder) in caught.value.message


def test_folder_that_may_not_be_read(tmp_path: Path) -> None:
    """Run as a user without rights, since root may read everything."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "a.txt").write_text("secret")
    folder.chmod(0)
    code = (
        "import os\n"
        "from mlaas.training.data import load_corpus\n"
        "from mlaas.training.recipes import DataRecipe\n"
        "os.getuid() or os.setuid(65534)\n"
        f"load_corpus(DataRecipe(path={str(folder)!r}))"
    )
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    folder.chmod(0o700)
    assert "DataError" in done.stderr
    assert "cannot be read: Permission denied" in done.stderr


documents_strategy = st.dictionaries(st.text(min_size=1, max_size=8), st.binary(max_size=20), min_size=2, max_size=200)


@given(documents_strategy, st.floats(min_value=1, max_value=99))
def test_split_is_a_partition_and_depends_on_each_name_alone(contents: dict[str, bytes], percent: float) -> None:
    documents = [Document(name=name, content=content) for name, content in contents.items()]
    training, validation = split_documents(documents, percent=percent)
    assert sorted(d.name for d in training + validation) == sorted(contents)
    if len(documents) < 100:
        assert {d.name for d in split_documents(documents[1:], percent=percent)[1]} <= {d.name for d in validation}


TEXTS = (
    "def f(x):\n    return x\n",
    "héllo wörld \U0001f600\n",
    "\t\ttabs  and   spaces\r\n",
    "",
    "x = 1_000\n" * 9,
)


def test_tokenizer_round_trips_any_text() -> None:
    tokenizer = train_tokenizer(
        [Document(name=str(i), content=t.encode()) for i, t in enumerate(TEXTS)], vocab_size=300
    )
    for text in (*TEXTS, "never seen: ﷽ \x00 日本"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_tokenized_split_ends_each_document_and_survives_the_disk(tmp_path: Path) -> None:
    texts = (*TEXTS, "an <|endoftext|> that is text\n")
    documents = [Document(name=str(i), content=text.encode()) for i, text in enumerate(texts)]
    tokenizer = train_tokenizer(documents, vocab_size=300)
    tokenize(documents, tokenizer=tokenizer).save(tmp_path / "training")
    split = TokenizedSplit.load(tmp_path / "training")
    assert (split.tokens == end_of_text_id(tokenizer)).sum() == len(texts)
    assert tokenizer.decode(split.tokens.tolist(), skip_special_tokens=True) == "".join(texts)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(min_value=1, max_value=30), min_size=1, max_size=12),
    length=st.integers(min_value=1, max_value=17),
    seed=st.integers(min_value=0, max_value=5),
)
def test_packing_predicts_each_token_once_in_each_epoch_and_pads_nothing(
    lengths: list[int], length: int, seed: int
) -> None:
    total = sum(lengths)
    starts = np.cumsum(lengths) - np.array(lengths)
    split = TokenizedSplit(tokens=np.arange(total, dtype=np.uint16), starts=starts.astype(np.int64))
    packed = PackedSequences(split, length=length, seed=seed)
    num_epochs = length  # after `length` epochs a whole number of sequences has been cut
    rows = packed.batch(0, count=total)
    assert rows.shape == (total, length + 1)
    counts = np.bincount(rows[:, :-1].ravel(), minlength=total)
    assert (counts == num_epochs).all()
    again = PackedSequences(split, length=length, seed=seed)
    assert (again.batch(total - 1, count=1) == rows[-1:]).all()


def test_sequences_of_one_epoch_are_shuffled_and_targets_follow_inputs() -> None:
    split = TokenizedSplit(tokens=np.arange(1000, dtype=np.uint16), starts=np.array([0], dtype=np.int64))
    rows = PackedSequences(split, length=10, seed=0).batch(0, count=99)
    assert (np.diff(rows, axis=1) % 1000 == 1).all()
    assert sorted(rows[:, 0].tolist()) != rows[:, 0].tolist()
