"""How a driver asks its workers to checkpoint and leave: one file in the run's folder.

The file is there from the start and is written in place, never replaced: opening it is what makes a shared file system
show its newest content, where a file that was missing a moment ago may stay missing for half a minute.
"""

from __future__ import annotations

import time
from pathlib import Path

_STAY, _LEAVE = "stay", "leave"
_LOOK_INTERVAL_S = 0.1


class LeaveRequest:
    """The driver's end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def withdraw(self) -> None:
        """Let workers that start now stay."""
        self._path.write_text(_STAY, encoding="utf-8")

    def make(self) -> None:
        """Ask the workers to checkpoint after the step that they are in, and to leave."""
        self._path.write_text(_LEAVE, encoding="utf-8")


class LeaveWatch:
    """The workers' end. Looking costs a file opened ten times a second at most, however short the steps are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_s = float("-inf")

    def is_asked(self) -> bool:
        """Tell whether the driver has asked, as far as the last look says; once true, ask no more."""
        if time.monotonic() - self._looked_s < _LOOK_INTERVAL_S:
            return False
        self._looked_s = time.monotonic()
        try:
            return self._path.read_text(encoding="utf-8") == _LEAVE
        except FileNotFoundError:  # workers that no driver of ours has started
            return False
