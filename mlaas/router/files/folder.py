"""The contents of files, each under its id in one folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mlaas.errors import NotFound, PlatformError

_ID = re.compile(r"file-[A-Za-z0-9_-]{1,100}")


class FileFolder:
    """A folder of contents; a content is there whole or not at all.

    Args:
        path: created when it is missing, for this user alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, file_id: str, pieces: Iterable[bytes]) -> int:
        """Write a content, in place of one with the same id, and return its length in bytes.

        Raises:
            PlatformError: it cannot be written.
        """
        place = self._place(file_id)
        draft = place.with_name(f"{file_id}.{os.getpid()}.part")
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with draft.open("wb") as stream:
                for piece in pieces:
                    stream.write(piece)
                stream.flush()
                os.fsync(stream.fileno())
                num_bytes = stream.tell()
            draft.replace(place)
        except OSError as error:
            raise PlatformError("file_not_written", f"cannot write {place}: {error.strerror}") from error
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        return num_bytes

    def read(self, file_id: str) -> bytes:
        """Return a content.

        Raises:
            NotFound: it is not in the folder.
        """
        try:
            return self._place(file_id).read_bytes()
        except OSError as error:
            message = f"the content of {file_id} is not in {self._path}; do all replicas share this folder?"
            raise NotFound("file_content_missing", message) from error

    def remove(self, file_id: str) -> None:
        """Remove a content, if it is there."""
        with suppress(OSError):
            self._place(file_id).unlink(missing_ok=True)

    def _place(self, file_id: str) -> Path:
        if _ID.fullmatch(file_id) is None:
            raise NotFound("file_not_found", f"there is no file {file_id[:100]!r}")
        return self._path / file_id
