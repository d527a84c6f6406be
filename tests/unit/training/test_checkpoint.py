"""Checkpoints: whole or absent, checked before use, and honest about a full disk."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlaas.errors import CheckpointError
from mlaas.training.checkpoint import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def write(store: CheckpointStore, step: int) -> Path:
    partial = store.begin(step, needed_bytes=100)
    (partial / "rank").mkdir()
    (partial / "rank" / "weights.pt").write_bytes(bytes([step]) * 100)
    (partial / "note.txt").write_text(f"step {step}")
    return store.commit(step).path


def test_newest_is_found_and_only_the_last_k_are_kept(store: CheckpointStore) -> None:
    assert store.latest_good() is None
    for step in (10, 20, 30):
        write(store, step)
    latest = store.latest_good()
    assert latest is not None
    assert latest.step == 30
    assert sorted(path.name for path in store.folder.iterdir()) == ["step-00000020", "step-00000030"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:50]), "rank/weights.pt has 50 bytes of 100"),
        (lambda f: f.write_bytes(b"x" * 100), "the content of rank/weights.pt has changed"),
        (lambda f: f.unlink(), "rank/weights.pt is missing"),
        (lambda f: (f.parent.parent / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    ],
    ids=["truncated", "changed", "missing", "manifest"],
)
def test_damaged_one_is_refused_by_name_and_the_one_before_is_used(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture, damage, reason: str
) -> None:
    write(store, 10)
    newest = write(store, 20)
    damage(newest / "rank" / "weights.pt")
    with caplog.at_level(logging.WARNING):
        latest = store.latest_good()
    assert latest is not None
    assert latest.step == 10
    assert f"{newest} is refused: {reason}" in caplog.text


def test_uncommitted_one_does_not_count_and_is_swept_up(store: CheckpointStore) -> None:
    write(store, 10)
    partial = store.begin(20, needed_bytes=100)
    latest = store.latest_good()
    assert latest is not None
    assert latest.step == 10
    write(store, 30)
    assert not partial.exists()


def test_the_same_step_is_written_again_after_a_resume(store: CheckpointStore) -> None:
    write(store, 10)
    assert write(store, 10) == store.latest_good().path


def test_too_little_space_is_seen_before_anything_is_written(store: CheckpointStore) -> None:
    kept = write(store, 10)
    needed = shutil.disk_usage(store.folder).total * 2
    with pytest.raises(CheckpointError) as caught:
        store.begin(20, needed_bytes=needed)
    assert "step-00000020 was not written" in caught.value.message
    assert f"needs {needed:,} bytes" in caught.value.message
    assert list(store.folder.iterdir()) == [kept]


FULL_DISK = """
import shutil, sys
from pathlib import Path
from mlaas.errors import CheckpointError
from mlaas.training.checkpoint import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]) / "checkpoints", keep=2)
def write(step, size):
    partial = store.begin(step, needed_bytes=1000)
    try:
        (partial / "weights").write_bytes(b"x" * size)
    except OSError as error:
        raise store.failure(step, error=error, needed_bytes=size) from error
    store.commit(step)
write(1, 300_000)
try:
    write(2, 900_000)
except CheckpointError as error:
    print(error.message)
print([path.name for path in store.folder.iterdir()], store.latest_good().step)
"""


def test_disk_that_fills_up_while_writing_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """On a real file system of 1 MB, mounted in a namespace of its own."""
    inner = f'mount -t tmpfs -o size=1m tmpfs "{tmp_path}" && exec "{sys.executable}" -c "$1" "{tmp_path}"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", inner, "bash"]
    if subprocess.run([*command, "print()"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets no user mount a tmpfs in a namespace")
    done = subprocess.run([*command, FULL_DISK], capture_output=True, text=True, check=True)
    message, left = done.stdout.splitlines()
    assert f"{tmp_path}/checkpoints/step-00000002 was not written: No space left on device" in message
    assert "needs 900,000 bytes" in message
    assert left == "['step-00000001'] 1"
