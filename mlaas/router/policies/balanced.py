"""`balanced`: cost x latency x quality at once, under the SLO.

    score = cost^c * end^l / quality^q          smaller is better

`cost` is the expected dollars of this request, `end` the predicted seconds to its last token, `quality` the table's
score for its task; c, l and q are the alias's `balance` weights. A product needs no common unit: with all weights at 1,
half the price makes up for twice the time. Who is predicted to break the SLO comes after all who keep it.

What is not known counts like the worst of the others: the highest cost and the lowest quality. An unmeasured latency
counts like the best while nothing is under way there, so that it gets measured, and else like the worst. Each factor is
kept above 1 % of its largest value, so that a price of zero does not make time and quality meaningless.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlaas.router.policies.base import highest, lowest, rank_by
from mlaas.router.predict import expected_cost_usd, keeps, predicted_end_s, quality, show_cost
from mlaas.router.types import Candidate, Ranked, Snapshot

_FLOOR = 0.01


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order by keeping the SLO, then by score."""
    scores = score(snapshot, candidates)
    slo = snapshot.route.slo

    def key(candidate: Candidate) -> tuple[float, ...]:
        return (not keeps(slo, candidate), scores[id(candidate)])

    return rank_by(candidates, key, "balanced", lambda each: show(snapshot, each))


def score(snapshot: Snapshot, candidates: Sequence[Candidate]) -> dict[int, float]:
    """Return the score of each candidate by its `id`."""
    need, weights = snapshot.need, snapshot.route.balance
    costs = [expected_cost_usd(each, need) for each in candidates]
    ends = [predicted_end_s(each, need) for each in candidates]
    goods = [quality(each, need.task) for each in candidates]
    fast, slow = lowest(ends), highest(ends)
    ends = [
        end if end is not None else (slow if each.num_outstanding else fast)
        for each, end in zip(candidates, ends, strict=True)
    ]
    factors = zip(_fill(costs, highest(costs)), _fill(ends, slow), _fill(goods, lowest(goods)), candidates, strict=True)
    return {
        id(each): cost**weights.cost * end**weights.latency / good**weights.quality for cost, end, good, each in factors
    }


def show(snapshot: Snapshot, candidate: Candidate) -> str:
    """Return the figures behind a score."""
    end_s, good = predicted_end_s(candidate, snapshot.need), quality(candidate, snapshot.need.task)
    parts = [
        show_cost(expected_cost_usd(candidate, snapshot.need), snapshot.need),
        "latency unknown" if end_s is None else f"{end_s:.2f} s",
        *([] if good is None else [f"quality {good:.2f}"]),
        *([] if keeps(snapshot.route.slo, candidate) else ["breaks the SLO"]),
    ]
    return ", ".join(parts)


def _fill(values: Sequence[float | None], missing: float | None) -> list[float]:
    """Return the values, unknown ones replaced, none below 1 % of the largest; all 1 when they tell nothing apart."""
    largest = highest(values)
    if not largest or missing is None:
        return [1.0] * len(values)
    return [max(missing if each is None else each, largest * _FLOOR) for each in values]
