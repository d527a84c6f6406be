"""Which address takes a request: a pure function of a snapshot."""

from __future__ import annotations

from mlaas.providers.base import Failure, FailureKind
from mlaas.providers.vllm import LOCAL
from mlaas.router.types import Attempt, Candidate, Decision, Readiness, Snapshot

_CAN_TRY = (Readiness.READY, Readiness.PROBE)
_RETRY_AFTER_S = 5.0


def decide(snapshot: Snapshot) -> Decision:
    """Order the candidates that can be tried.

    Targets keep the order of the route. Within a target a candidate that wants a probe comes first, because only a
    request can bring it back and a failed one moves on before the caller sees a byte; then the least outstanding
    requests; then a rotation by `turn`.

    Args:
        snapshot: the route and the state of each address.

    Returns:
        All candidates that can be tried, each once, and why the others cannot.
    """
    route, candidates = snapshot.route, snapshot.candidates
    if len(candidates) == 1 and candidates[0].readiness in _CAN_TRY:
        return Decision(route=route, attempts=(_attempt(snapshot, candidates[0], []),))
    attempts: list[Attempt] = []
    skipped: list[Candidate] = []
    for target in route.targets:
        group = [candidate for candidate in candidates if candidate.target == target]
        ready = [candidate for candidate in group if candidate.readiness in _CAN_TRY]
        if group and not ready:
            skipped.append(group[0])
        attempts += [_attempt(snapshot, candidate, skipped) for candidate in _order(ready, snapshot.turn)]
    return Decision(
        route=route,
        attempts=tuple(attempts),
        skipped=tuple(skipped),
        may_recover=snapshot.is_recovering or any(each.readiness is Readiness.DOWN for each in candidates),
    )


def explain_no_target(decision: Decision) -> Failure:
    """Return what a caller gets when none of a route's targets can be tried."""
    why = "; ".join(map(str, decision.skipped)) or "it has no target"
    if decision.skipped and all(each.readiness is Readiness.UNSUPPORTED for each in decision.skipped):
        return Failure(
            kind=FailureKind.REJECTED,
            status=400,
            code="unsupported_operation",
            message=f"model {decision.route.model!r} cannot answer this: {why}; use /v1/chat/completions",
            type="invalid_request_error",
        )
    absent = [each for each in decision.skipped if each.readiness is Readiness.ABSENT and each.target.provider == LOCAL]
    way_out = f"; start it with `mlaas deploy {absent[0].target.model}`" if absent else ""
    return Failure(
        kind=FailureKind.REFUSED,
        status=503,
        code="model_unavailable",
        message=f"model {decision.route.model!r} is not available: {why}{way_out}",
        type="service_unavailable_error",
        retry_after_s=_RETRY_AFTER_S,
    )


def _order(candidates: list[Candidate], turn: int) -> list[Candidate]:
    num = len(candidates)
    if num < 2:
        return candidates
    rotated = candidates[turn % num :] + candidates[: turn % num]
    return sorted(rotated, key=lambda candidate: (candidate.readiness is Readiness.READY, candidate.num_outstanding))


def _attempt(snapshot: Snapshot, candidate: Candidate, skipped: list[Candidate]) -> Attempt:
    reason = "; ".join(map(str, skipped)) or ("first target" if snapshot.route.is_alias else "named by the caller")
    return Attempt(target=candidate.target, origin=candidate.origin, reason=reason)
