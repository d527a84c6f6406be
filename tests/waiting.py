"""The one way in which tests wait: for a condition, with a deadline, and a name for what did not come."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_S = 0.05


def wait_until(condition: Callable[[], object], *, what: str, timeout_s: float = 120.0) -> None:
    """Return as soon as the condition holds.

    Raises:
        TimeoutError: it does not within `timeout_s` seconds; names `what`.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(POLL_S)
