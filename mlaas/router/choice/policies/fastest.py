"""`fastest`: the earliest predicted end of the answer, from live time to first token and tokens per second.

An address without recent answers is explored by one request at a time: it comes first while nothing is under way
there, and last while that one request is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlaas.router.choice.policies.base import rank_by
from mlaas.router.choice.predict import predicted_end_s
from mlaas.router.types import Candidate, Ranked, Snapshot


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order by predicted time to the last token."""
    ends = [predicted_end_s(each, snapshot.need) for each in candidates]
    keys = [(_unknown(each) if end is None else end,) for each, end in zip(candidates, ends, strict=True)]
    figures = ["not measured lately" if end is None else f"done in {end:.2f} s" for end in ends]
    return rank_by("fastest", candidates, keys, figures)


def _unknown(candidate: Candidate) -> float:
    return math.inf if candidate.num_outstanding else -math.inf
