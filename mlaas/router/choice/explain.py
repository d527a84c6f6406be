"""A decision told: every candidate with its figures, who was chosen and why, who was skipped and why."""

from __future__ import annotations

from typing import Any

from mlaas.errors import NotFound
from mlaas.providers.base import Call, ProviderFailed
from mlaas.router.catalog import Catalog
from mlaas.router.choice.decide import decide, explain_no_target
from mlaas.router.choice.decision_log import snapshot_to_json
from mlaas.router.choice.fleet import Fleet
from mlaas.router.choice.predict import (
    expected_cost_usd,
    input_tokens,
    num_running,
    num_waiting,
    output_tokens,
    predicted_end_s,
    predicted_ttft_s,
    quality,
)
from mlaas.router.choice.prefixes import prompt_blocks
from mlaas.router.dialects.build import DIALECTS
from mlaas.router.fit import Fitter
from mlaas.router.need import extent_of, needs_of
from mlaas.router.types import Candidate, Decision, Need, RoutingPolicy, Snapshot, Target


def explain(snapshot: Snapshot) -> dict[str, Any]:
    """Return the decision on a snapshot as a tree for JSON: candidates in the order in which they would be tried.

    `snapshot` in it is the whole input as text, which `mlaas route explain --replay` takes.
    """
    decision = decide(snapshot)
    by_address = {(str(each.target), each.origin): each for each in snapshot.candidates}
    tried = [
        {"place": place, "reason": each.reason, **_figures(by_address[str(each.target), each.origin], snapshot.need)}
        for place, each in enumerate(decision.attempts, start=1)
    ]
    skipped = [
        {"place": None, "reason": each.reason, **_figures(by_address[str(each.target), each.origin], snapshot.need)}
        for each in decision.skipped
    ]
    first = decision.attempts[0] if decision.attempts else None
    return {
        "model": snapshot.route.model,
        "policy": snapshot.route.policy.value if snapshot.route.is_alias else "",
        "target": str(first.target) if first is not None else "",
        "origin": first.origin if first is not None else "",
        "reason": first.reason if first is not None else explain_no_target(decision).message,
        "task": snapshot.need.task,
        "input_tokens": input_tokens(snapshot.need),
        "output_tokens": output_tokens(snapshot.need),
        "is_bursting": snapshot.burst.is_active,
        "candidates": [*tried, *skipped],
        "snapshot": snapshot_to_json(snapshot).decode(),
    }


def explain_call(call: Call, *, catalog: Catalog, fleet: Fleet, fitter: Fitter, now_s: float) -> dict[str, Any]:
    """Return what would become of a call if it came now; nothing is sent.

    Each candidate tells which fields it would not get (`drops`) and why it could not take the request (`refuses`); the
    request goes to the first that could.

    Raises:
        NotFound: its model stands for nothing, or for other models.
    """
    if call.model in catalog.virtual:
        raise NotFound("no_route", f"model {call.model!r} is made of other models; ask for one of those")
    route = catalog.resolve(call.model, local_models=fleet.local_models)
    blocks = prompt_blocks(call.fields) if route.policy is RoutingPolicy.PREFIX_AFFINITY else ()
    need = needs_of(call, route, extent=extent_of(call), has_budget=True, droppable=fitter.droppable(route.model))
    told = explain(fleet.snapshot(route, call.operation, now_s=now_s, need=need, blocks=blocks))
    for each in told["candidates"]:
        each |= _fit(call, each["target"], route.model, catalog=catalog, fitter=fitter)
    tried = [each for each in told["candidates"] if each["place"] is not None]
    taker = next((each for each in tried if not each["refuses"]), None)
    if taker is not None:
        told |= {name: taker[name] for name in ("target", "origin", "reason")}
    elif tried:
        told |= {"target": "", "origin": "", "reason": tried[0]["refuses"]}
    return told


def _fit(call: Call, address: str, alias: str, *, catalog: Catalog, fitter: Fitter) -> dict[str, Any]:
    """Return what a target makes of a request's fields."""
    provider, _, model = address.partition("/")
    if provider not in catalog.providers:
        return {"drops": [], "refuses": ""}
    target = Target(provider=provider, model=model)
    try:
        fitted = fitter.fit(call, target, alias=alias, dialect=DIALECTS[call.operation], max_output_tokens=None)
    except ProviderFailed as error:
        return {"drops": [], "refuses": error.failure.message}
    return {"drops": list(fitted.dropped), "refuses": ""}


def difference(logged: Decision, again: Decision) -> str:
    """Return how two decisions differ, in a sentence; empty when they are equal."""
    if logged == again:
        return ""
    before = [f"{each.target} {each.origin}" for each in logged.attempts]
    now = [f"{each.target} {each.origin}" for each in again.attempts]
    if before != now:
        return f"tried {', '.join(before) or 'nobody'}; now {', '.join(now) or 'nobody'}"
    before, now = _reasons(logged), _reasons(again)
    reasons = [f"{one!r} is now {other!r}" for one, other in zip(before, now, strict=False) if one != other]
    return "; ".join(reasons) or "the route or who is skipped is another"


def _reasons(decision: Decision) -> list[str]:
    tried = [f"{each.target}: {each.reason}" for each in decision.attempts]
    return tried + [f"{each.target}: {each.reason}" for each in decision.skipped]


def _figures(candidate: Candidate, need: Need) -> dict[str, Any]:
    """Return what is known of a candidate and what is predicted; None where nothing is."""
    pace, engine, price = candidate.pace, candidate.engine, candidate.offer.price
    return {
        "target": str(candidate.target),
        "origin": candidate.origin,
        "state": candidate.readiness.value,
        "cost_usd": expected_cost_usd(candidate, need),
        "input_usd_per_mtok": price.input_usd * 1e6 if price is not None else None,
        "output_usd_per_mtok": price.output_usd * 1e6 if price is not None else None,
        "quality": quality(candidate, need.task),
        "ttft_p50_s": pace.ttft_p50_s if pace is not None else None,
        "ttft_p95_s": pace.ttft_p95_s if pace is not None else None,
        "tokens_per_s": pace.tokens_per_s if pace is not None else None,
        "predicted_ttft_s": predicted_ttft_s(candidate),
        "predicted_end_s": predicted_end_s(candidate, need),
        "num_running": num_running(candidate),
        "num_waiting": num_waiting(candidate),
        "kv_usage": engine.kv_usage if engine is not None else None,
        "num_outstanding": candidate.num_outstanding,
        "matched_tokens": candidate.matched_tokens,
        "context_tokens": candidate.offer.context_tokens or None,
        "max_output_tokens": candidate.offer.max_output_tokens or None,
        "lacks": list(candidate.offer.lacks),
        "is_external": candidate.offer.is_external,
        "residency": list(candidate.offer.residency),
    }
