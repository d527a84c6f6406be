"""Carries the journal's lines to the store's ledger of usage, each at least once; the ledger keeps each once.

`shipping` calls `Shipper.ship` each second. How far a file has been carried is kept beside it, so that a
restart goes on from there. Files whose writer is gone are carried by whoever shares the folder: a lock tells them
apart, and keeps two from carrying one file at once.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import orjson

from mlaas.router.money.journal import PENDING_PATTERN
from mlaas.router.money.rates import to_pico_usd
from mlaas.store.usage import UsageEntry

# Of one transaction: a commit costs as much as a hundred rows, and others who write to the store wait for all of them.
_LINES_PER_BATCH = 500
_NUM_SHIPPED_KEPT = 4
_MAX_BIGINT = 2**63 - 1
_TOKEN_FIELDS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
)

logger = logging.getLogger(__name__)


class UsageSink(Protocol):
    """Where entries go; `mlaas.store.usage.UsageRepository` is one."""

    def add(self, entries: Sequence[UsageEntry]) -> None:
        """Store the entries, all or none; one whose id is known already is left as it is."""


class Written(Protocol):
    """A journal that is being written; `Journal` is one."""

    @property
    def folder(self) -> Path:
        """Where its files lie."""

    @property
    def path(self) -> Path | None:
        """The file being written."""


class JournalOf:
    """The journal of another process, as one who carries it sees it.

    Args:
        folder: where its files lie.
        pid: who writes.
    """

    def __init__(self, folder: Path, *, pid: int) -> None:
        self.folder = folder
        self._pid = pid

    @property
    def path(self) -> Path | None:
        """The newest of the process's files."""
        return max(self.folder.glob(f"requests-*-{self._pid}.jsonl"), default=None)


class Shipper:
    """Ships one journal's folder.

    Args:
        journal: whose lines are carried while they are written.
        sink: where the entries go.
    """

    def __init__(self, journal: Written, sink: UsageSink) -> None:
        self.num_unreadable = 0
        """Lines that could not be read, and were left out."""
        self._journal = journal
        self._folder = journal.folder
        self._sink = sink

    def ship(self) -> None:
        """Carry all that has been written, by this process and by those that are gone. Blocks.

        A file that has been carried to its end is kept for reading, up to the fourth newest.

        Raises:
            PlatformError: the store cannot be reached; the next call goes on from where this one got to.
            OSError: the folder cannot be read or written.
        """
        for path in sorted(self._folder.glob(PENDING_PATTERN)):
            # Asked anew for each: the journal may begin another file meanwhile.
            if path == self._journal.path:
                with path.open("rb") as file:
                    self._carry(path, file)
                continue
            with _left_by_its_writer(path) as left:
                if left is not None:
                    self._carry(path, left)
                    self._finish(path, left)

    def pending_bytes(self) -> int:
        """Return how much of the folder's journal, of all its writers, the store does not have yet."""
        num_bytes = 0
        for path in self._folder.glob(PENDING_PATTERN):
            # Another shipper may have come to its end meanwhile.
            with suppress(FileNotFoundError):
                num_bytes += path.stat().st_size - _read_offset(path)
        return num_bytes

    def _carry(self, path: Path, file: BinaryIO) -> None:
        """Carry a file's whole lines from where it was got to."""
        offset = _read_offset(path)
        while True:
            file.seek(offset)
            # What follows a line that is just being written may be the rest of it.
            lines = list(takewhile(lambda line: line.endswith(b"\n"), islice(file, _LINES_PER_BATCH)))
            if not lines:
                break
            entries = [entry for line in lines if (entry := self._read(path, line)) is not None]
            if entries:
                self._sink.add(entries)
            offset += sum(map(len, lines))
            _write_offset(path, offset)
        file.seek(offset)

    def _read(self, path: Path, line: bytes) -> UsageEntry | None:
        try:
            return read_entry(line)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            self.num_unreadable += 1
            logger.error("a line of the journal %s cannot be read and is left out: %s", path, type(error).__name__)
            return None

    def _finish(self, path: Path, file: BinaryIO) -> None:
        if torn := file.read():
            self.num_unreadable += 1
            logger.error("the journal %s ends in a torn line of %d bytes, which is left out", path, len(torn))
        path.rename(path.with_name(path.name.replace("requests-", "shipped-", 1)))
        _offset_path(path).unlink(missing_ok=True)
        for old in sorted(self._folder.glob("shipped-*.jsonl"))[:-_NUM_SHIPPED_KEPT]:
            old.unlink(missing_ok=True)


def read_entry(line: bytes) -> UsageEntry | None:
    """Return the ledger's entry for a line of the journal.

    None: the line is no request of a known key to a model, so there is nothing to account for.

    Raises:
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError: it is no line that a `Journal` writes.
    """
    record: dict[str, Any] = orjson.loads(line)
    if not record["key_id"] or not record["operation"]:
        return None
    used = record["usage"] or {}
    target = _text(record["target"])
    cost_usd = record["cost_usd"]
    return UsageEntry(
        id=_text(record["id"]),
        request_id=_text(record["request_id"]),
        at=datetime.fromtimestamp(record["at_s"], UTC),
        key_id=_text(record["key_id"]),
        tenant=_text(record["tenant"]),
        model=_text(record["model"]),
        provider=target.partition("/")[0],
        target=target,
        operation=_text(record["operation"]),
        status=int(record["status"]),
        error=_text(record["error"]) or None,
        is_stream=bool(record["is_stream"]),
        is_estimated=bool(used.get("is_estimated", False)),
        cost_pico_usd=None if cost_usd is None else _count(to_pico_usd(Decimal(cost_usd))),
        duration_ms=float(record["duration_ms"]),
        ttft_ms=None if record["ttft_ms"] is None else float(record["ttft_ms"]),
        queue_ms=float(record["queue_ms"]),
        num_attempts=int(record["num_attempts"]),
        cache=_text(record["cache"]),
        reason=_text(record["reason"]) or None,
        **{field: _count(used.get(field, 0)) for field in _TOKEN_FIELDS},
    )


def _text(value: str | None) -> str:
    """Return a text that both engines take: PostgreSQL refuses NUL, and one refused row would hold up all others."""
    return (value or "").replace("\0", "")


def _count(value: int) -> int:
    return min(max(int(value), 0), _MAX_BIGINT)


@contextmanager
def _left_by_its_writer(path: Path) -> Iterator[BinaryIO | None]:
    """Open and lock a file that nobody writes; give None when somebody does, or when another shipper has it."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield None
        return
    with file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.stat(path).st_ino == os.fstat(file.fileno()).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        yield file if is_ours else None


def _offset_path(path: Path) -> Path:
    return path.with_suffix(".offset")


def _read_offset(path: Path) -> int:
    try:
        return int(_offset_path(path).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _write_offset(path: Path, offset: int) -> None:
    new = path.with_suffix(".offset.new")
    new.write_text(str(offset))
    new.replace(_offset_path(path))
