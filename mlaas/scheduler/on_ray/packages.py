"""Working directories of commands: archives named by the digest of their content, unpacked once on each node."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import zipfile
from typing import TYPE_CHECKING

from mlaas.errors import PlacementError

if TYPE_CHECKING:
    from pathlib import Path


def package_path(home: Path, digest: str) -> Path:
    """Return the file of an archive."""
    return home / "packages" / f"{digest}.zip"


def unpack(home: Path, digest: str) -> Path:
    """Return the folder with the content of an archive, unpacking it if that has not been done.

    Raises:
        PlacementError: the archive is not there, is torn, or names files outside its folder.
    """
    archive = package_path(home, digest)
    folder = archive.with_suffix("")
    if folder.exists():
        return folder
    if not archive.exists():
        raise PlacementError("no_package", f"the working directory {digest[:12]} is not in {archive.parent}")
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _unpack(archive, folder, digest=digest)
    return folder


def _unpack(archive: Path, folder: Path, *, digest: str) -> None:
    if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
        raise PlacementError("torn_package", f"{archive} is not what its name says; submit again")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                path = content.extract(member, partial)
                if mode := (member.external_attr >> 16) & 0o777:
                    os.chmod(path, mode | 0o600 | (0o100 if member.is_dir() else 0))
    except (zipfile.BadZipFile, OSError) as error:
        raise PlacementError("torn_package", f"{archive} cannot be unpacked: {error}") from error
    partial.mkdir(exist_ok=True)
    partial.rename(folder)
