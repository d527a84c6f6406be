"""The seam of the routing policies, and what several of them need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from mlaas.router.types import Candidate, Ranked, Readiness, Snapshot


class Rank(Protocol):
    """Orders the candidates that can take a request. Pure and total."""

    def __call__(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
        """Return each candidate exactly once, best first, each with the figures that put it there.

        Args:
            snapshot: the request, the route and all candidates.
            candidates: those of them to rank, in the order of the route; at least one.
        """


def rank_by(
    name: str, candidates: Sequence[Candidate], keys: Sequence[tuple[float, ...]], figures: Sequence[str]
) -> list[Ranked]:
    """Return candidates by ascending key, ties in the order given; each reason sets its figure against the next best.

    Args:
        name: of the policy.
        candidates: to rank.
        keys: one for each; smaller is better.
        figures: what the reason says of each.
    """
    if len(candidates) == 1:
        return [Ranked(candidate=candidates[0], reason=f"{name}: {figures[0]}")]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    best, second = order[0], order[1]
    rivals = (
        f" vs {figures[best]} at {candidates[best].target}",
        f" vs {figures[second]} at {candidates[second].target}",
    )
    return [
        Ranked(candidate=candidates[index], reason=f"{name}: {figures[index]}{rivals[index == best]}")
        for index in order
    ]


def wants_probe_last(candidate: Candidate) -> bool:
    """Sort key that puts an address that wants a probe first."""
    return candidate.readiness is Readiness.READY


def lowest(values: Iterable[float | None]) -> float | None:
    """Return the least of the values that are known; None when none is."""
    return min((each for each in values if each is not None), default=None)


def highest(values: Iterable[float | None]) -> float | None:
    """Return the greatest of the values that are known; None when none is."""
    return max((each for each in values if each is not None), default=None)
