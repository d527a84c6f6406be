"""`balanced`: cost x latency x quality at once, under the SLO.

    score = cost^c * end^l / quality^q          smaller is better

`cost` is the expected dollars of this request, `end` the predicted seconds to its last token, `quality` the table's
score for its task; c, l and q are the alias's `balance` weights. A product needs no common unit: with all weights at 1,
half the price makes up for twice the time. Who is predicted to break the SLO comes after all who keep it.

What is not known counts like the worst of the others: the highest cost and the lowest quality. An unmeasured latency
counts like the best while nothing is under way there, so that it gets measured, and else like the worst. Cost and
quality are kept above 1 % of their largest value, so that a price of zero does not make time and quality meaningless.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlaas.router.choice.policies.base import highest, lowest, rank_by
from mlaas.router.choice.predict import expected_cost_usd, keeps, predicted_end_s, quality, show_cost
from mlaas.router.types import BalanceWeights, Candidate, Ranked, Snapshot

_FLOOR = 0.01
_LEAST = 1e-12
_Figures = Sequence[float | None]


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order by keeping the SLO, then by score."""
    need, route = snapshot.need, snapshot.route
    costs = [expected_cost_usd(each, need) for each in candidates]
    ends = [predicted_end_s(each, need) for each in candidates]
    goods = [quality(each, need.task) for each in candidates]
    breaks = [not keeps(route.slo, each) for each in candidates]
    scores = _scores(route.balance, costs, _explored(candidates, ends), goods)
    shown = zip(costs, ends, goods, breaks, strict=True)
    figures = [_show(show_cost(cost, need), end, good, is_broken) for cost, end, good, is_broken in shown]
    return rank_by("balanced", candidates, list(zip(breaks, scores, strict=True)), figures)


def _scores(weights: BalanceWeights, costs: _Figures, ends: _Figures, goods: _Figures) -> list[float]:
    """Return the logarithm of each score, in which no product can overflow."""
    factors = zip(
        _fill(costs, highest(costs)), _fill(ends, highest(ends), floor=0.0), _fill(goods, lowest(goods)), strict=True
    )
    return [
        weights.cost * math.log(cost) + weights.latency * math.log(end) - weights.quality * math.log(good)
        for cost, end, good in factors
    ]


def _explored(candidates: Sequence[Candidate], ends: _Figures) -> _Figures:
    """Return the times with each unknown one taken as the best where nothing is under way, so that it gets measured."""
    fast = lowest(ends)
    return [
        fast if end is None and not each.num_outstanding else end for each, end in zip(candidates, ends, strict=True)
    ]


def _show(cost: str, end_s: float | None, good: float | None, is_broken: bool) -> str:
    end = "latency unknown" if end_s is None else f"{end_s:.2f} s"
    score = "" if good is None else f", quality {good:.2f}"
    return f"{cost}, {end}{score}{', breaks the SLO' if is_broken else ''}"


def _fill(values: _Figures, missing: float | None, *, floor: float = _FLOOR) -> list[float]:
    """Return the values, unknown ones replaced, none below a part of the largest; all 1 when they say nothing."""
    largest = highest(values)
    if not largest or missing is None:
        return [1.0] * len(values)
    return [max(missing if each is None else each, largest * floor, _LEAST) for each in values]
