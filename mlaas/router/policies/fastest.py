"""`fastest`: the earliest predicted end of the answer, from live time to first token and tokens per second.

An address without recent answers is explored by one request at a time: it comes first while nothing is under way
there, and last while that one request is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlaas.router.policies.base import rank_by
from mlaas.router.predict import predicted_end_s
from mlaas.router.types import Candidate, Ranked, Snapshot


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order by predicted time to the last token."""
    need = snapshot.need

    def end(candidate: Candidate) -> tuple[float, ...]:
        end_s = predicted_end_s(candidate, need)
        if end_s is not None:
            return (end_s,)
        return (math.inf if candidate.num_outstanding else -math.inf,)

    def show(candidate: Candidate) -> str:
        end_s = predicted_end_s(candidate, need)
        return "not measured lately" if end_s is None else f"done in {end_s:.2f} s"

    return rank_by(candidates, end, "fastest", show)
