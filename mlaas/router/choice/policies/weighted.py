"""`weighted`: shares of the traffic by weight, exact in expectation.

The snapshot's draw falls into one target's share. What is left of the draw, stretched to the whole range again, chooses
among the others, so that a failed target's traffic is spread by weight too. Targets of weight 0 come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mlaas.router.types import Candidate, Ranked, Route, Snapshot, Target


class _Group(NamedTuple):
    weight: float
    members: list[Candidate]


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order the targets by the draw; the replicas of one stay together."""
    groups: list[_Group] = []
    for candidate in candidates:
        if not groups or groups[-1].members[0].target != candidate.target:
            groups.append(_Group(weight=_weight(snapshot.route, candidate.target), members=[]))
        groups[-1].members.append(candidate)
    total = sum(group.weight for group in groups)
    ranked: list[Ranked] = []
    draw = snapshot.draw
    while groups:
        index, draw = _choose(groups, draw)
        group = groups.pop(index)
        share = group.weight / total if total else 0.0
        ranked += [Ranked(candidate=each, reason=f"weighted: {share:.0%} of the traffic") for each in group.members]
    return ranked


def _weight(route: Route, target: Target) -> float:
    if target not in route.targets:
        return 0.0
    return route.weights[route.targets.index(target)] if route.weights else 1.0


def _choose(groups: list[_Group], draw: float) -> tuple[int, float]:
    """Return which group's share holds the draw, and the draw's place within that share."""
    at = draw * sum(group.weight for group in groups)
    for index, group in enumerate(groups):
        if at < group.weight:
            return index, at / group.weight
        at -= group.weight
    heaviest = max(range(len(groups)), key=lambda index: groups[index].weight)
    return heaviest, draw
