"""A working directory as an archive: the same files give the same bytes, so what is there is not sent again."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlaas.api.package_folder import MAX_PACKAGE_BYTES
from mlaas.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEFT_OUT: Final = frozenset(
    {".git", ".venv", "__pycache__", "node_modules", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a ZIP file can hold; when a file was written is no part of what it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """An archive and its digest."""

    archive: bytes
    digest: str


def pack(folder: Path) -> Package:
    """Return a folder as a package: in a Git checkout what Git would keep, elsewhere all but caches.

    Raises:
        ConfigError: it is no folder, cannot be read, or is too large.
    """
    if not folder.is_dir():
        raise ConfigError("no_working_dir", f"{folder} is not a folder")
    content = io.BytesIO()
    try:
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in sorted(_names(folder)):
                entry = zipfile.ZipInfo(name, _LONG_AGO)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o755 if os.access(folder / name, os.X_OK) else 0o644) << 16
                archive.writestr(entry, (folder / name).read_bytes())
                if content.tell() > MAX_PACKAGE_BYTES:
                    raise ConfigError("package_too_large", _too_large(folder))
    except OSError as error:
        raise ConfigError("bad_working_dir", f"cannot read {folder}: {error}") from error
    archived = content.getvalue()
    return Package(archive=archived, digest=hashlib.sha256(archived).hexdigest())


def _names(folder: Path) -> Iterator[str]:
    """Yield the files below a folder by their paths in it."""
    listing = ["git", "-C", str(folder), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(listing, capture_output=True, check=True).stdout.decode()
        yield from (name for name in listed.split("\0") if name and (folder / name).is_file())
    except (OSError, subprocess.CalledProcessError):
        for at, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if name not in _LEFT_OUT]
            yield from (str((Path(at) / name).relative_to(folder)) for name in files if (Path(at) / name).is_file())


def _too_large(folder: Path) -> str:
    sizes = sorted(((folder / name).stat().st_size, name) for name in _names(folder))[-3:]
    largest = ", ".join(f"{name} ({size / 1e6:,.0f} MB)" for size, name in reversed(sizes))
    return (
        f"{folder} is over {MAX_PACKAGE_BYTES / 2**20:.0f} MiB as an archive; largest: {largest}. Name a smaller folder"
        " with --working-dir, list what is not needed in .gitignore, and put data where all machines see it"
    )
