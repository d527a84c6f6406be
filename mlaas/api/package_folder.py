"""Archives of working directories on disk, where the scheduler's launchers look for them."""

from __future__ import annotations

import hashlib
import io
import re
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlaas.errors import InvalidRequest
from mlaas.scheduler.on_ray.packages import package_path

MAX_PACKAGE_BYTES: Final = 100 * 1024 * 1024
"""A longer archive is refused: what is so large is data, and belongs on a file system that all machines see."""
MAX_UNPACKED_BYTES: Final = 1024**3
MAX_FILES: Final = 50_000
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class PackageFolder:
    """Keeps archives in the folder of an instance, each under the SHA-256 of its bytes.

    Attributes:
        home: of the instance.
    """

    home: Path

    def has(self, digest: str) -> bool:
        """Return whether an archive is there."""
        return is_digest(digest) and package_path(self.home, digest).exists()

    def put(self, archive: bytes) -> str:
        """Keep an archive and return its digest; one that is there already is left as it is.

        Raises:
            InvalidRequest: it is no ZIP file, or its content is too large.
        """
        _check(archive)
        digest = hashlib.sha256(archive).hexdigest()
        path = package_path(self.home, digest)
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
            partial.write_bytes(archive)
            partial.rename(path)
        return digest


def is_digest(text: str) -> bool:
    """Return whether a text has the form of a digest."""
    return _DIGEST.fullmatch(text) is not None


def _check(archive: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as content:
            members = content.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InvalidRequest("bad_package", f"a package is a ZIP file, and this is none: {error}") from error
    num_bytes = sum(member.file_size for member in members)
    if num_bytes > MAX_UNPACKED_BYTES or len(members) > MAX_FILES:
        message = (
            f"{len(members):,} files of {num_bytes:,} bytes; a package has at most {MAX_FILES:,} files of"
            f" {MAX_UNPACKED_BYTES:,} bytes: put data where all machines see it"
        )
        raise InvalidRequest("package_too_large", message)
