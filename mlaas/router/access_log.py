"""One JSON line for each request, written in batches off the event loop; never a prompt, an answer or a key."""

from __future__ import annotations

import logging.handlers
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import orjson

_MAX_PENDING = 100_000
_MAX_FILE_BYTES = 64 * 1024 * 1024
_NUM_OLD_FILES = 2


@dataclass(kw_only=True, slots=True)
class AccessEntry:
    """What one request was and how it ended; filled in on its way.

    Attributes:
        at_s: wall clock when it came in, seconds since 1970.
        status: HTTP status; 499 when the caller left before an answer.
        duration_ms: until the last byte of the answer.
        error: code of the error that the caller got, in the status or inside the stream.
    """

    request_id: str
    at_s: float
    route: str = ""
    key_id: str | None = None
    model: str | None = None
    target: str | None = None
    is_stream: bool = False
    status: int = 499
    duration_ms: float = 0.0
    num_attempts: int = 0
    reason: str | None = None
    error: str | None = None


class AccessLog:
    """Keeps entries until `flush`, which a background loop calls in a thread each second.

    A crash loses the last second. When nobody flushes, the oldest entries fall out past 100,000.

    Args:
        path: file to append to; it is rotated at 64 MiB, and two old ones are kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: deque[AccessEntry] = deque(maxlen=_MAX_PENDING)
        self._file: logging.handlers.RotatingFileHandler | None = None

    def record(self, entry: AccessEntry) -> None:
        """Take an entry; costs an append."""
        self._pending.append(entry)

    def flush(self) -> None:
        """Write what has come in; blocks.

        Raises:
            OSError: the file cannot be written; the entries at hand are lost.
        """
        if not self._pending:
            return
        lines = [orjson.dumps(self._pending.popleft()) for _ in range(len(self._pending))]
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = logging.handlers.RotatingFileHandler(
                self._path, maxBytes=_MAX_FILE_BYTES, backupCount=_NUM_OLD_FILES, encoding="utf-8"
            )
        self._file.emit(logging.makeLogRecord({"msg": b"\n".join(lines).decode()}))
