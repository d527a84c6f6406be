"""Following a workload through all its attempts, as a person does who waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mlaas.errors import PlatformError

if TYPE_CHECKING:
    from mlaas.api.client import ControlPlane

_POLL_S: Final = 1
_PATIENCE_S: Final = 120.0
"""How long a gateway or scheduler that is gone is waited for: they start again within seconds."""
_FINAL: Final = ("succeeded", "failed", "cancelled")

ResultT = TypeVar("ResultT")


def follow(
    client: ControlPlane, workload_id: str, *, write: Callable[[bytes], None], tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Follow a workload until it has ended, and return it.

    Args:
        client: where to ask.
        workload_id: which.
        write: takes what its command prints.
        tell: takes the workload whenever its state or reason is another one.

    Raises:
        MlaasError: as the client; a gateway or scheduler that is gone is waited for first.
    """
    attempt, told = 1, ("", "")
    while True:
        record = _patiently(partial(client.get, workload_id))
        if (record["state"], record["reason"]) != told:
            told = (record["state"], record["reason"])
            tell(record)
        if record["attempt"] >= attempt and "command" in record["spec"]:
            _write_attempt(client, workload_id, attempt, write)
            attempt += 1
        elif record["state"] in _FINAL:
            return record
        else:
            time.sleep(_POLL_S)


def _write_attempt(client: ControlPlane, workload_id: str, attempt: int, write: Callable[[bytes], None]) -> None:
    """Write all that one attempt prints, until it is over."""
    offset, is_over = 0, False
    while not is_over:
        read = partial(client.read_log, workload_id, attempt=attempt, offset=offset, wait_s=_POLL_S)
        piece = _patiently(read)
        write(piece.text)
        offset, is_over = piece.next_offset, piece.is_over


def _patiently(ask: Callable[[], ResultT]) -> ResultT:
    """Return an answer, asking again while nobody answers."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask()
        except PlatformError as error:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(error.retry_after_s or _POLL_S)
