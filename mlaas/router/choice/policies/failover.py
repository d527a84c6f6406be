"""`failover`: the first target that is up, in the order written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mlaas.router.types import Candidate, Ranked, Snapshot

NAMED: Final = "named by the caller"


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Keep the order of the route."""
    if not snapshot.route.is_alias:
        return [Ranked(candidate=each, reason=NAMED) for each in candidates]
    first = snapshot.route.targets[0]
    return [
        Ranked(candidate=each, reason="first target" if each.target == first else "next target") for each in candidates
    ]
