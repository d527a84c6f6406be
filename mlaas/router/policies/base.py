"""The seam of the routing policies, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    candidates: Sequence[Candidate],
    key: Callable[[Candidate], tuple[float, ...]],
    name: str,
    show: Callable[[Candidate], str],
) -> list[Ranked]:
    """Return candidates by ascending key, ties in the order given; each reason sets its figure against the next best.

    Args:
        candidates: to rank.
        key: smaller is better.
        name: of the policy.
        show: the figure that a reason gives for a candidate.
    """
    ordered = sorted(candidates, key=key)
    if len(ordered) == 1:
        return [Ranked(candidate=ordered[0], reason=f"{name}: {show(ordered[0])}")]
    shown = [show(each) for each in ordered]
    rivals = [_rival(ordered, shown, index) for index in range(len(ordered))]
    return [
        Ranked(candidate=each, reason=f"{name}: {figure}{rival}")
        for each, figure, rival in zip(ordered, shown, rivals, strict=True)
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


def _rival(ordered: Sequence[Candidate], shown: Sequence[str], index: int) -> str:
    other = 1 if index == 0 else 0
    return f" vs {shown[other]} at {ordered[other].target}"
