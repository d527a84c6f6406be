"""Time, for records and for deadlines."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Clock:
    """Two readings of time: one that people set, and one that only goes on.

    Records carry the first. Deadlines, heartbeats and the ledger go by the second, so that no jump of a clock kills
    what yields, loses what holds, or ages what waits.
    """

    wall_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic

    def now(self) -> datetime:
        """Return the time of day."""
        return datetime.fromtimestamp(self.wall_s(), UTC)
