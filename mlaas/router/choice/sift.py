"""Which candidates can take a request at all, and why the others cannot."""

from __future__ import annotations

from mlaas.router.types import Candidate, Readiness, Skip, Snapshot

_CAN_TRY = (Readiness.READY, Readiness.PROBE)
_RESTS = (Readiness.RESTING, Readiness.EXHAUSTED)


def can_try(candidate: Candidate, snapshot: Snapshot) -> bool:
    """Return whether the state of an address lets a request through.

    An address that rests is still asked when the caller named it and nothing else: then the upstream's own word is the
    honest answer.
    """
    return candidate.readiness in _CAN_TRY or (not snapshot.route.is_alias and candidate.readiness in _RESTS)


def refusal(candidate: Candidate, snapshot: Snapshot) -> str:
    """Return why a candidate cannot take the request; empty when it can.

    Estimates only choose among an alias's targets. A target that the caller named gets the request whatever they say.
    """
    if not can_try(candidate, snapshot):
        why = candidate.readiness.value
        return f"{why}, for {candidate.rest_s:.0f} s more" if candidate.readiness in _RESTS else why
    if not snapshot.route.is_alias:
        return ""
    return _misfit(candidate, snapshot)


def skip(candidate: Candidate, reason: str) -> Skip:
    """Return a candidate as one that is not tried."""
    return Skip(
        target=candidate.target,
        origin=candidate.origin,
        readiness=candidate.readiness,
        reason=reason,
        rest_s=candidate.rest_s,
    )


def _misfit(candidate: Candidate, snapshot: Snapshot) -> str:
    offer, need = candidate.offer, snapshot.need
    if offer.is_external and snapshot.route.residency:
        missing = [tag for tag in snapshot.route.residency if tag not in offer.residency]
        if missing:
            return f"does not keep data in {', '.join(missing)}"
    if need.features and offer.lacks:
        lacking = [feature for feature in need.features if feature in offer.lacks]
        if lacking:
            return f"cannot do {', '.join(lacking)}"
    num_tokens = need.input_tokens + need.output_tokens
    if offer.context_tokens and num_tokens > offer.context_tokens:
        return f"has a context of {offer.context_tokens:,} tokens, and about {num_tokens:,} are needed"
    if offer.max_output_tokens and need.output_tokens > offer.max_output_tokens:
        return f"writes {offer.max_output_tokens:,} tokens at most, and {need.output_tokens:,} are asked for"
    return ""
