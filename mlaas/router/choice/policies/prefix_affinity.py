"""`prefix_affinity`: the replica that has seen most of the prompt, unless it is much busier than the least busy one.

A prompt's front that is already in a replica's KV cache is not computed again. What each replica has seen is kept by
`mlaas.router.choice.prefixes`; the snapshot carries how many tokens match.

Source: L. Zheng et al., "SGLang: Efficient Execution of Structured Language Model Programs", 2024, section 3.3, and the
cache-aware balancing of its router, which also falls back on load.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlaas.router.choice.policies import least_loaded
from mlaas.router.choice.policies.base import wants_probe_last
from mlaas.router.choice.predict import input_tokens, load
from mlaas.router.types import Candidate, Ranked, Snapshot

_MAX_LOAD_RATIO = 1.5
_FREE_LOAD = 8.0


def rank(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Put the best match that is not overloaded first; the others follow by load."""
    by_load = least_loaded.rank(snapshot, candidates)
    least = min(load(each) for each in candidates)
    most = least * _MAX_LOAD_RATIO + _FREE_LOAD
    matching = [each for each in by_load if each.candidate.matched_tokens and load(each.candidate) <= most]
    if not matching:
        busy = any(each.matched_tokens for each in candidates)
        why = "replica with the prompt's front is too busy" if busy else "no replica has seen the prompt's front"
        return [Ranked(candidate=each.candidate, reason=f"prefix: {why}; {each.reason}") for each in by_load]
    best = max(matching, key=lambda each: each.candidate.matched_tokens)
    found = best.candidate.matched_tokens
    needed = max(found, input_tokens(snapshot.need) if snapshot.need.input_tokens else found)
    reason = f"prefix: {found:,} of {needed:,} prompt tokens are likely in its cache"
    rest = sorted((each for each in by_load if each is not best), key=lambda each: wants_probe_last(each.candidate))
    return [Ranked(candidate=best.candidate, reason=reason), *rest]
