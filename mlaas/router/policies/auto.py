"""`auto`: by the request's task, the best quality per dollar among those that are good at it and keep the SLO.

    value = quality^q / cost^c                  greater is better

Quality alone would always buy the dearest model and quality per dollar the worst, since prices differ a hundredfold and
scores by tenths. So only candidates within a tenth of the best score for the task compete by value; the others follow
by score. Without any score for the task this is `balanced`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlaas.router.policies import balanced
from mlaas.router.policies.base import highest, rank_by
from mlaas.router.predict import expected_cost_usd, keeps, quality, show_cost
from mlaas.router.types import Candidate, Ranked, Snapshot

_GOOD_ENOUGH = 0.9
_LEAST_COST_USD = 1e-9


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order by keeping the SLO, then by being good enough, then by value."""
    need, route = snapshot.need, snapshot.route
    best = highest(quality(each, need.task) for each in candidates)
    if best is None:
        return balanced.rank(snapshot, candidates)
    dearest = highest(expected_cost_usd(each, need) for each in candidates) or 1.0

    def key(candidate: Candidate) -> tuple[float, ...]:
        good = quality(candidate, need.task) or 0.0
        cost_usd = expected_cost_usd(candidate, need)
        cost_usd = max(dearest if cost_usd is None else cost_usd, _LEAST_COST_USD)
        is_weak = good < best * _GOOD_ENOUGH
        value = good if is_weak else good**route.balance.quality / cost_usd**route.balance.cost
        return (not keeps(route.slo, candidate), is_weak, -value)

    def show(candidate: Candidate) -> str:
        good = quality(candidate, need.task)
        score = "unknown" if good is None else f"{good:.2f}"
        return f"quality {score}, {show_cost(expected_cost_usd(candidate, need), need)}"

    return rank_by(candidates, key, f"auto for {need.task or 'any task'}", show)
