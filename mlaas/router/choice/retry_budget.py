"""How many retries all requests of a gateway replica may make together."""

from __future__ import annotations

_MEMORY_S = 10.0


class RetryBudget:
    """A share of the requests, plus a floor: without a bound, retries multiply the load of whoever is already failing.

    Each request earns `ratio` of a retry, each second `min_per_s`; a retry takes one. What is not used within about ten
    seconds is lost.

    Args:
        ratio: retries for each request.
        min_per_s: retries that are always allowed, per second.

    Source: Finagle's `RetryBudget`; the `retry_budget` of Envoy's circuit breakers, whose ratio is 20 % as well.
    """

    def __init__(self, *, ratio: float = 0.2, min_per_s: float = 10.0) -> None:
        self._ratio = ratio
        self._min_per_s = min_per_s
        self._earned = 0.0
        self._floor = min_per_s
        self._at_s: float | None = None

    def earn(self, *, now_s: float) -> None:
        """Count a request."""
        self._refresh(now_s)
        self._earned += self._ratio

    def allows(self, *, now_s: float) -> bool:
        """Return whether a retry may be made now."""
        self._refresh(now_s)
        return self._earned + self._floor >= 1.0

    def spend(self, *, now_s: float) -> None:
        """Count a retry that is made, out of what the requests have earned first."""
        self._refresh(now_s)
        from_earned = min(1.0, self._earned)
        self._earned -= from_earned
        self._floor = max(0.0, self._floor - (1.0 - from_earned))

    def _refresh(self, now_s: float) -> None:
        passed_s = 0.0 if self._at_s is None else max(0.0, now_s - self._at_s)
        self._at_s = now_s
        if passed_s:
            self._floor = min(self._min_per_s, self._floor + passed_s * self._min_per_s)
            self._earned *= max(0.0, 1.0 - passed_s / _MEMORY_S)
