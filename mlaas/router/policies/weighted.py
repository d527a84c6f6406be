"""`weighted`: shares of the traffic by weight, exact in expectation.

The snapshot's draw falls into one target's share. What is left of the draw, stretched to the whole range again, chooses
among the others, so that a failed target's traffic is spread by weight too. Targets of weight 0 come last.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlaas.router.types import Candidate, Ranked, Snapshot, Target


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order the targets by the draw; the replicas of one stay together."""
    route = snapshot.route
    weights = dict(zip(route.targets, route.weights or (1.0,) * len(route.targets), strict=True))
    left = {target: weights.get(target, 0.0) for target in dict.fromkeys(each.target for each in candidates)}
    total = sum(left.values())
    draw, order = snapshot.draw, list[tuple[Target, str]]()
    while left:
        target, draw = _choose(left, draw)
        share = weights.get(target, 0.0) / total if total else 0.0
        del left[target]
        order.append((target, f"weighted: {share:.0%} of the traffic"))
    return [
        Ranked(candidate=each, reason=reason)
        for target, reason in order
        for each in candidates
        if each.target == target
    ]


def _choose(weights: dict[Target, float], draw: float) -> tuple[Target, float]:
    """Return the target whose share holds the draw, and the draw's place within that share."""
    total = sum(weights.values())
    low = 0.0
    for target, weight in weights.items():
        if weight and (draw * total < low + weight):
            return target, max(0.0, (draw * total - low) / weight)
        low += weight
    heaviest = max(weights, key=lambda target: weights[target])
    return heaviest, draw
