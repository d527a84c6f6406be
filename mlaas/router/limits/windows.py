"""A sliding window: how many units were used in the last 60 s.

Exact on the safe side: a unit is usable again between 60 s and 60.05 s after its use, never earlier.
"""

from __future__ import annotations

from collections import deque

GRAINS = 1200
"""Uses within one 1200th of the window, 50 ms of 60 s, leave it together: this bounds memory."""


class Bucket:
    """Units that leave the window together."""

    __slots__ = ("closes_s", "expires_s", "units")

    def __init__(self, *, closes_s: float, expires_s: float) -> None:
        self.closes_s = closes_s
        self.expires_s = expires_s
        self.units = 0


class Window:
    """The units in use: each one from its use until `span_s` seconds after it."""

    __slots__ = ("_buckets", "_grain_s", "_span_s", "used")

    def __init__(self, *, span_s: float) -> None:
        self.used = 0
        self._span_s = span_s
        self._grain_s = span_s / GRAINS
        self._buckets: deque[Bucket] = deque()

    def advance(self, now_s: float) -> None:
        """Let go of what has left the window."""
        buckets = self._buckets
        while buckets and buckets[0].expires_s <= now_s:
            self.used -= buckets.popleft().units

    def add(self, units: int, *, now_s: float) -> Bucket:
        """Use units now; the bucket that they are in lets `correct` find them."""
        buckets = self._buckets
        if not buckets or buckets[-1].closes_s <= now_s:
            closes_s = now_s + self._grain_s
            buckets.append(Bucket(closes_s=closes_s, expires_s=closes_s + self._span_s))
        bucket = buckets[-1]
        bucket.units += units
        self.used += units
        return bucket

    def correct(self, bucket: Bucket, difference: int, *, now_s: float) -> None:
        """Change how many units were used at a past moment: fewer count less there, more count from now on."""
        if difference > 0:
            self.add(difference, now_s=now_s)
        elif bucket.expires_s > now_s:
            bucket.units += difference
            self.used += difference

    def frees_in_s(self, units: int, *, now_s: float) -> float | None:
        """Return when so many units will have left the window; None when there are not as many in it."""
        for bucket in self._buckets:
            if bucket.units > 0:
                units -= bucket.units
                if units <= 0:
                    return max(0.0, bucket.expires_s - now_s)
        return None

    def empties_in_s(self, *, now_s: float) -> float:
        """Return when the window will be empty."""
        return max(0.0, self._buckets[-1].expires_s - now_s) if self.used and self._buckets else 0.0
