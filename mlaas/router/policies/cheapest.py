"""`cheapest`: the lowest expected cost of this very request; a target without a price comes last."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlaas.router.policies.base import rank_by
from mlaas.router.predict import expected_cost_usd, show_cost
from mlaas.router.types import Candidate, Ranked, Snapshot


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order by estimated tokens times price, input and output each."""
    need = snapshot.need

    def cost(candidate: Candidate) -> tuple[float, ...]:
        cost_usd = expected_cost_usd(candidate, need)
        return (math.inf if cost_usd is None else cost_usd,)

    return rank_by(candidates, cost, "cheapest", lambda each: show_cost(expected_cost_usd(each, need), need))
