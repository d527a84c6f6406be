"""`auto`: by the request's task, the best quality per dollar among those that are good at it and keep the SLO.

    value = quality^q / cost^c                  greater is better

Quality alone would always buy the dearest model and quality per dollar the worst, since prices differ a hundredfold and
scores by tenths. So only candidates within a tenth of the best score for the task compete by value; the others follow
by score. Without any score for the task this is `balanced`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlaas.router.choice.policies import balanced
from mlaas.router.choice.policies.base import highest, rank_by
from mlaas.router.choice.predict import expected_cost_usd, keeps, quality, show_cost
from mlaas.router.types import Candidate, Ranked, Snapshot

_GOOD_ENOUGH = 0.9
_LEAST_COST_USD = 1e-9


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order by keeping the SLO, then by being good enough, then by value."""
    need, route = snapshot.need, snapshot.route
    scores = [quality(each, need.task) for each in candidates]
    best = highest(scores)
    if best is None:
        return balanced.rank(snapshot, candidates)
    costs = [expected_cost_usd(each, need) for each in candidates]
    dearest = highest(costs) or 1.0
    keys: list[tuple[float, ...]] = []
    for candidate, score, cost in zip(candidates, scores, costs, strict=True):
        good = score or 0.0
        is_weak = good < best * _GOOD_ENOUGH
        cost_usd = max(dearest if cost is None else cost, _LEAST_COST_USD)
        value = good if is_weak else good**route.balance.quality / cost_usd**route.balance.cost
        keys.append((not keeps(route.slo, candidate), is_weak, -value))
    figures = [
        f"quality {'unknown' if score is None else f'{score:.2f}'}, {show_cost(cost, need)}"
        for score, cost in zip(scores, costs, strict=True)
    ]
    return rank_by(f"auto for {need.task or 'any task'}", candidates, keys, figures)
