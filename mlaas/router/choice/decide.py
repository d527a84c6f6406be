"""Which address takes a request: a pure function of a snapshot."""

from __future__ import annotations

from mlaas.providers.base import Failure, FailureKind
from mlaas.providers.vllm import LOCAL
from mlaas.router.choice.burst import is_over, pressure
from mlaas.router.choice.policies.failover import NAMED
from mlaas.router.choice.policies.table import RANKS
from mlaas.router.choice.predict import load
from mlaas.router.choice.sift import refusal, skip
from mlaas.router.types import (
    Attempt,
    BurstLimits,
    Candidate,
    Decision,
    Ranked,
    Readiness,
    RoutingPolicy,
    Skip,
    Snapshot,
)

_RETRY_AFTER_S = 5.0
_BACK_SOON = (Readiness.DOWN, Readiness.RESTING)
_RESTS = (Readiness.RESTING, Readiness.EXHAUSTED)


def decide(snapshot: Snapshot) -> Decision:
    """Order the candidates that can be tried.

    Who cannot take the request is skipped (`sift`), the alias's policy ranks the others (`policies`), and the overflow
    to its burst targets is decided last (`burst`). Within a target a candidate that wants a probe comes first, because
    only a request can bring it back and a failed one moves on before the caller sees a byte; then the least load; then
    a rotation by `turn`.

    Args:
        snapshot: the request, the route and the state of each address.

    Returns:
        All candidates that can be tried, each once and with its reason, and why each of the others is not.
    """
    route, candidates = snapshot.route, snapshot.candidates
    if len(candidates) == 1 and not route.is_alias and candidates[0].readiness is Readiness.READY:
        only = candidates[0]
        return Decision(route=route, attempts=(Attempt(target=only.target, origin=only.origin, reason=NAMED),))
    able: list[Candidate] = []
    skipped: list[Skip] = []
    for candidate in candidates:
        reason = refusal(candidate, snapshot)
        if reason:
            skipped.append(skip(candidate, reason))
        else:
            able.append(candidate)
    if route.burst is not None:
        able, overflow = _split(route.burst, able)
        bursting, refused = _overflow(snapshot, route.burst, able, overflow)
    else:
        bursting, refused = [], []
    ordered = _in_order(snapshot, able)
    ranked = [*bursting, *(RANKS[route.policy](snapshot, ordered) if ordered else ())]
    missing = _missing(skipped, able) if skipped else ()
    skipped += refused
    return Decision(
        route=route,
        attempts=tuple(_attempt(each, snapshot, missing) for each in ranked),
        skipped=tuple(skipped),
        may_recover=snapshot.is_recovering or any(each.readiness in _BACK_SOON for each in skipped),
    )


def explain_no_target(decision: Decision) -> Failure:
    """Return what a caller gets when none of a route's targets can be tried."""
    skipped = decision.skipped
    why = "; ".join(dict.fromkeys(map(str, skipped))) or "it has no target"
    model = decision.route.model
    if skipped and all(each.readiness is Readiness.UNSUPPORTED for each in skipped):
        return Failure(
            kind=FailureKind.REJECTED,
            status=400,
            code="unsupported_operation",
            message=f"model {model!r} cannot answer this: {why}; use /v1/chat/completions",
            type="invalid_request_error",
        )
    if skipped and all(each.readiness in (Readiness.READY, Readiness.PROBE) for each in skipped):
        return Failure(
            kind=FailureKind.REJECTED,
            status=400,
            code="no_target_fits",
            message=f"no target of model {model!r} can take this request: {why}",
            type="invalid_request_error",
        )
    resting = [each.rest_s for each in skipped if each.readiness in _RESTS]
    if resting and len(resting) == len(skipped):
        return Failure(
            kind=FailureKind.OVERLOADED,
            status=429,
            code="upstream_rests",
            message=f"model {model!r} is at its upstreams' limits: {why}",
            type="rate_limit_error",
            retry_after_s=min(resting),
        )
    absent = [each for each in skipped if each.readiness is Readiness.ABSENT and each.target.provider == LOCAL]
    way_out = f"; start it with `mlaas deploy {absent[0].target.model}`" if absent else ""
    return Failure(
        kind=FailureKind.REFUSED,
        status=503,
        code="model_unavailable",
        message=f"model {model!r} is not available: {why}{way_out}",
        type="service_unavailable_error",
        retry_after_s=_RETRY_AFTER_S,
    )


def _split(burst: BurstLimits, able: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Return the candidates of the alias's own targets, and those that only take overflow."""
    home = [each for each in able if each.target not in burst.targets]
    return home, [each for target in burst.targets for each in able if each.target == target]


def _overflow(
    snapshot: Snapshot, burst: BurstLimits, home: list[Candidate], overflow: list[Candidate]
) -> tuple[list[Ranked], list[Skip]]:
    """Return the burst targets that take the request, and those that do not; either all or none."""
    if not overflow:
        return [], []
    why, is_authorised = _overflow_reason(snapshot, burst, home)
    if is_authorised:
        return [Ranked(candidate=each, reason=f"{why}; burst to {each.target}") for each in overflow], []
    return [], [skip(each, why) for each in overflow]


def _overflow_reason(snapshot: Snapshot, burst: BurstLimits, home: list[Candidate]) -> tuple[str, bool]:
    """Return why traffic overflows and True, or why it does not and False."""
    if home:
        pressed = pressure(home, burst, snapshot.route.slo)
        if not is_over(snapshot.burst, pressed.ratio, burst):
            return f"takes overflow only, and {home[0].target} has {pressed.what}", False
        back = f", until below {burst.return_ratio:.0%} of the limit" if pressed.ratio <= 1 else ""
        reason = f"{home[0].target} saturated: {pressed.what}{back}"
    else:
        starting = [each for each in snapshot.candidates if each.readiness is Readiness.STARTING]
        if not starting or not burst.cold_start:
            return "takes overflow only, and a home that is out is none", False
        reason = str(starting[0])
    if not snapshot.need.has_budget:
        return f"takes overflow only, and the key's budget is spent ({reason})", False
    return reason, True


def _in_order(snapshot: Snapshot, candidates: list[Candidate]) -> list[Candidate]:
    """Return candidates in the order of the route, the replicas of one target by need of a probe, load and turn."""
    if len(candidates) < 2:
        return candidates
    if len(candidates) == 2 and candidates[0].target != candidates[1].target:
        return candidates
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(str(candidate.target), []).append(candidate)
    ordered: list[Candidate] = []
    for group in groups.values():
        start = snapshot.turn % len(group)
        ordered += sorted(group[start:] + group[:start], key=_replica_order)
    return ordered


def _replica_order(candidate: Candidate) -> tuple[bool, float]:
    return (candidate.readiness is Readiness.READY, load(candidate))


def _missing(skipped: list[Skip], able: list[Candidate]) -> tuple[Skip, ...]:
    """Return one skip of each target that has no address left."""
    present = {each.target for each in able}
    return tuple({each.target: each for each in reversed(skipped) if each.target not in present}.values())[::-1]


def _attempt(ranked: Ranked, snapshot: Snapshot, missing: tuple[Skip, ...]) -> Attempt:
    """Return the attempt, its reason with the targets that are missing; in a failover, those before it."""
    target, reason = ranked.candidate.target, ranked.reason
    if missing:
        if snapshot.route.policy is RoutingPolicy.FAILOVER:
            targets = snapshot.route.targets
            before = targets[: targets.index(target)] if target in targets else ()
            reason = "; ".join(str(each) for each in missing if each.target in before) or reason
        else:
            reason = "; ".join((reason, *map(str, missing)))
    return Attempt(target=target, origin=ranked.candidate.origin, reason=reason)
