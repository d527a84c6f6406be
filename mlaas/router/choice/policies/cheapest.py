"""`cheapest`: the lowest expected cost of this very request; a target without a price comes last."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlaas.router.choice.policies.base import rank_by
from mlaas.router.choice.predict import expected_cost_usd, show_cost
from mlaas.router.types import Candidate, Ranked, Snapshot


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order by estimated tokens times price, input and output each."""
    need = snapshot.need
    costs = [expected_cost_usd(each, need) for each in candidates]
    keys = [(math.inf if cost is None else cost,) for cost in costs]
    return rank_by("cheapest", candidates, keys, [show_cost(cost, need) for cost in costs])
