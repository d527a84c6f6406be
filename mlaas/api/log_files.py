"""What commands have printed: a file for each attempt, read piece by piece."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPT_HEADER: Final = "x-mlaas-log-attempt"
OFFSET_HEADER: Final = "x-mlaas-log-offset"
OVER_HEADER: Final = "x-mlaas-log-over"
STATE_HEADER: Final = "x-mlaas-workload-state"

MAX_PIECE_BYTES: Final = 1024 * 1024
"""No piece is longer; who wants more asks again."""
_POLL_S: Final = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class LogPiece:
    """A part of what a command has printed."""

    text: bytes
    attempt: int
    next_offset: int
    """Where the next part begins."""
    is_over: bool
    """Whether this attempt prints no more, and this is the end of it."""
    state: str
    """Of the workload."""


async def read_piece(path: Path, *, offset: int) -> bytes:
    """Return what a file holds from an offset on; empty while it is not there."""
    return await asyncio.to_thread(_read, path, offset)


async def wait_for_piece(path: Path, *, offset: int, wait_s: float) -> bytes:
    """Return what a file holds from an offset on, as soon as there is something or `wait_s` are over."""
    deadline_s = asyncio.get_running_loop().time() + wait_s
    while not (piece := await read_piece(path, offset=offset)):
        if asyncio.get_running_loop().time() >= deadline_s:
            break
        await asyncio.sleep(_POLL_S)
    return piece


def last_lines_offset(path: Path, *, num_lines: int) -> int:
    """Return where the last lines of a file begin, of its last MiB at most. Blocks."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            begin = file.seek(max(0, size - MAX_PIECE_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return 0
    at = len(tail) - tail.endswith(b"\n")
    for _ in range(num_lines):
        at = tail.rfind(b"\n", 0, at)
        if at < 0:
            return begin
    return begin + at + 1


def _read(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(MAX_PIECE_BYTES)
    except FileNotFoundError:
        return b""
