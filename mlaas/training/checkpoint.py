"""Checkpoints that are whole or absent: written aside, hashed, synced, then renamed into place.

A checkpoint is a folder `step-00000200` with a `manifest.json` of the size and SHA-256 of each file. The rename is
the commit: a folder under its final name was complete when it got it, and what happened to the disk since is found by
the hashes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlaas.errors import CheckpointError

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8})")

Seal = dict[str, object]
"""Size and hash of a file, as the manifest has them."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose files are what its manifest says."""

    step: int
    """Optimizer steps that it has seen."""
    path: Path
    """Its folder."""


class CheckpointStore:
    """The checkpoints of one run, newest `keep` of them.

    Any number of processes may write files into one checkpoint; one of them begins it and commits it.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self._keep = keep

    def partial(self, step: int) -> Path:
        """Return the folder that the files of a checkpoint are written to before it is committed."""
        return self.folder / f".partial-{step:08d}"

    def begin(self, step: int, *, needed_bytes: int) -> Path:
        """Make the empty folder for a new checkpoint and return it. Leftovers of failed ones are removed.

        Args:
            step: optimizer steps done.
            needed_bytes: about how much will be written.

        Raises:
            CheckpointError: the disk has not that much space, or the folder cannot be made.
        """
        partial = self.partial(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".partial-*"):
                shutil.rmtree(leftover)
            partial.mkdir()
        except OSError as error:
            raise self.failure(step, error=error, needed_bytes=needed_bytes) from error
        if shutil.disk_usage(self.folder).free < needed_bytes:
            raise self.failure(step, error=OSError("no space left on device"), needed_bytes=needed_bytes)
        return partial

    def failure(self, step: int, *, error: Exception, needed_bytes: int) -> CheckpointError:
        """Remove what was written of a checkpoint, and return the error to raise; committed ones are untouched."""
        shutil.rmtree(self.partial(step), ignore_errors=True)
        free = shutil.disk_usage(next(p for p in (self.folder, *self.folder.parents) if p.exists())).free
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        return CheckpointError(
            "checkpoint_not_written",
            f"checkpoint {self._path(step)} was not written: {reason}. It needs {needed_bytes:,} bytes and {free:,} "
            "are free; make room and submit again, the run goes on from the checkpoint before",
        )

    def commit(self, step: int, *, sealed: Mapping[str, Seal] | None = None) -> Checkpoint:
        """Hash and sync every file, rename the folder into place, and remove the oldest checkpoints.

        Args:
            step: optimizer steps done.
            sealed: files by name, that those who wrote them have sealed already.

        Raises:
            CheckpointError: the disk failed; the checkpoint does not exist and the earlier ones do.
        """
        partial, final = self.partial(step), self._path(step)
        try:
            files = sorted(path for path in partial.rglob("*") if path.is_file())
            names = {path.relative_to(partial).as_posix(): path for path in files}
            manifest = {name: (sealed or {}).get(name) or seal(path) for name, path in names.items()}
            (partial / _MANIFEST).write_text(json.dumps({"step": step, "files": manifest}, indent=1), encoding="utf-8")
            _sync(partial / _MANIFEST)
            for folder in [*(path for path in partial.rglob("*") if path.is_dir()), partial]:
                _sync(folder)
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
            _sync(self.folder)
        except OSError as error:
            raise self.failure(step, error=error, needed_bytes=_folder_bytes(partial)) from error
        for old in self._steps()[: -self._keep]:
            shutil.rmtree(self._path(old))
        return Checkpoint(step=step, path=final)

    def latest_good(self) -> Checkpoint | None:
        """Return the newest checkpoint whose files match its manifest; None when there is none.

        Each newer one that does not match is named in a warning.
        """
        for step in reversed(self._steps()):
            path = self._path(step)
            fault = find_fault(path)
            if fault is None:
                return Checkpoint(step=step, path=path)
            logger.warning("checkpoint %s is refused: %s; using the one before", path, fault)
        return None

    def _steps(self) -> list[int]:
        """Return the steps of all committed checkpoints, oldest first."""
        names = [_NAME.fullmatch(path.name) for path in self.folder.glob("step-*")]
        return sorted(int(name[1]) for name in names if name)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


def find_fault(path: Path) -> str | None:
    """Compare a checkpoint's files with its manifest and return the first difference, or None."""
    try:
        files: dict[str, dict[str, object]] = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{_MANIFEST} cannot be read ({error})"
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"]:
            return f"{name} has {file.stat().st_size:,} bytes of {expected['bytes']:,}"
        if _digest(file) != expected["sha256"]:
            return f"the content of {name} has changed"
    return None


def seal(path: Path) -> Seal:
    """Sync a file to disk and return what the manifest says of it; who has written it does this best.

    Raises:
        OSError: the disk failed.
    """
    _sync(path)
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
