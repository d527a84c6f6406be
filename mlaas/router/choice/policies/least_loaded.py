"""`least_loaded`: the address with the least load, by engine queue, batch and KV cache (`predict.load`)."""

from __future__ import annotations

from collections.abc import Sequence

from mlaas.router.choice.policies.base import rank_by, wants_probe_last
from mlaas.router.choice.predict import load, num_running, num_waiting
from mlaas.router.types import Candidate, Ranked, Snapshot


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Order by load; an address that wants a probe comes first, since only a request can bring it back."""
    del snapshot
    keys = [(wants_probe_last(each), load(each)) for each in candidates]
    return rank_by("least loaded", candidates, keys, [_show(each) for each in candidates])


def _show(candidate: Candidate) -> str:
    if candidate.engine is None:
        return f"{candidate.num_outstanding} under way"
    usage = candidate.engine.kv_usage
    return f"{num_waiting(candidate)} waiting, {num_running(candidate)} running, KV cache {usage:.0%}"
