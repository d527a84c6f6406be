"""Events per second, as a moving average that forgets."""

from __future__ import annotations

import math

_MEMORY_S = 30.0


class Rate:
    """A rate over about the last half minute: each event weighs less the older it is."""

    __slots__ = ("_at_s", "_since_s", "_weight")

    def __init__(self) -> None:
        self._weight = 0.0
        self._at_s = 0.0
        self._since_s: float | None = None

    def count(self, *, now_s: float) -> None:
        """Count one event."""
        if self._since_s is None:
            self._since_s = self._at_s = now_s
        self._weight = self._weight * math.exp((self._at_s - now_s) / _MEMORY_S) + 1.0
        self._at_s = now_s

    def per_s(self, *, now_s: float) -> float:
        """Return the rate; while the count is younger than its memory, over the time that it has."""
        if self._since_s is None:
            return 0.0
        age_s = max(now_s - self._since_s, 1.0)
        weight = self._weight * math.exp((self._at_s - now_s) / _MEMORY_S)
        return weight / (_MEMORY_S * (1.0 - math.exp(-age_s / _MEMORY_S)))
