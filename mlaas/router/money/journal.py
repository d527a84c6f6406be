"""The journal of requests: one JSON line for each, written at its end; never a prompt, an answer or a key.

Each line is one `write` to a file, so a line that was recorded survives the death of the process at any instant (not
that of the machine's kernel). From there `journal_shipping` carries it to the store: an outage of the store delays the
ledger and loses nothing.

A journal is a folder that several processes share. Each process writes files of its own and holds a lock on the one it
writes, which the kernel releases with the process: a file whose lock is free has no writer any more.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from decimal import Decimal
from pathlib import Path

import orjson

from mlaas.router.record import RequestRecord

PENDING_PATTERN = "requests-*.jsonl"
"""Files whose lines the store may not have yet; their names sort by age."""

_MAX_FILE_BYTES = 64 * 1024 * 1024

logger = logging.getLogger(__name__)


class Journal:
    """Writes this process's requests.

    When the disk is full, or the folder cannot be written, requests are answered all the same: their records are lost,
    counted, and the loss is logged once.

    Args:
        folder: created when missing; readable by its owner alone.
        max_file_bytes: a file that has reached this size is left, and the next one begun.
    """

    def __init__(self, folder: Path, *, max_file_bytes: int = _MAX_FILE_BYTES) -> None:
        self.folder = folder
        self.path: Path | None = None
        """The file being written; None before the first record."""
        self.num_lost = 0
        """Records that could not be written."""
        self._max_file_bytes = max_file_bytes
        self._fd = -1
        self._size = 0
        self._is_failing = False

    def record(self, record: RequestRecord) -> None:
        """Write a record down. Blocks for the one write; never raises."""
        try:
            self._append(orjson.dumps(record, default=_encode, option=orjson.OPT_APPEND_NEWLINE))
        except (OSError, orjson.JSONEncodeError) as error:
            self.num_lost += 1
            if not self._is_failing:
                logger.error(
                    "records of requests are being lost; cannot write the journal in %s: %s", self.folder, error
                )
            self._is_failing = True
        else:
            if self._is_failing:
                logger.warning("the journal in %s is written again; %d records were lost", self.folder, self.num_lost)
            self._is_failing = False

    def close(self) -> None:
        """Leave the file; its lines can then be shipped by whoever shares the folder."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.path = -1, None

    def _append(self, line: bytes) -> None:
        if self._fd < 0 or self._size >= self._max_file_bytes:
            self._begin_file()
        num_written = os.write(self._fd, line)
        if num_written != len(line):
            # A torn line would take the next one with it.
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += num_written

    def _begin_file(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"requests-{time.time_ns():020d}-{os.getpid()}.jsonl"
        # It gets its name once it is locked: nobody may take it for a file without a writer.
        unnamed = self.folder / f".{name}"
        fd = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            unnamed.rename(self.folder / name)
        except OSError:
            os.close(fd)
            raise
        self.close()
        self._fd, self.path, self._size = fd, self.folder / name, 0


def _encode(value: object) -> str:
    # What has no place in the journal must not take its record with it.
    return str(value) if isinstance(value, Decimal) else f"<{type(value).__name__}>"
