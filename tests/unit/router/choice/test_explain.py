"""Decisions told, and replayed."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given

from mlaas.auth.types import KeyLimits, Principal
from mlaas.errors import InvalidRequest, NotFound, PermissionDenied
from mlaas.providers.base import FieldError, Operation
from mlaas.router.abilities import Abilities
from mlaas.router.catalog import build_catalog
from mlaas.router.choice.decide import decide
from mlaas.router.choice.decision_log import decision_to_json, find_logged, replay
from mlaas.router.choice.explain import difference, explain
from mlaas.router.choice.explain_routes import ExplainRoutes
from mlaas.router.choice.fleet import Fleet
from mlaas.router.config_file import parse_config
from mlaas.router.fit import build_fitter
from mlaas.router.routes import Request
from tests.fakes.snapshots import make_snapshot, snapshots

FILE = """
providers:
  house: {kind: openai_compatible, base_url: "http://127.0.0.1:1/v1", api_key: x}
  openai: {api_key: x}
  claude: {kind: anthropic, api_key: x}
models:
  fast: {targets: [house/m, openai/gpt-5-mini]}
  loose: {drop_params: [seed, tools], targets: [claude/claude-3-haiku, house/m]}
  strict: {targets: [claude/claude-sonnet-5, house/m]}
  hopeless: {targets: [claude/claude-sonnet-5]}
  twice: {ensemble: {models: [fast, house/m], combine: majority}}
"""


@given(snapshots)
def test_each_candidate_is_told_once_and_what_is_told_can_be_replayed(shot):
    told = explain(shot)
    assert len(told["candidates"]) == len(shot.candidates)
    assert all(each["reason"] for each in told["candidates"])
    assert orjson.loads(orjson.dumps(told)) == told
    assert replay(orjson.dumps(told)) == decide(shot)


def test_a_row_of_the_journal_is_replayed_and_one_without_choice_passed_over():
    shot = make_snapshot(1)
    line = decision_to_json(shot, decide(shot))
    row = orjson.dumps({"id": "x", "decision": orjson.loads(line)})
    assert find_logged(row) == find_logged(line)
    assert find_logged(b'{"id": "x", "decision": null}') is None


@pytest.mark.parametrize("line", ["[]", "{}", "{", '{"snapshot": {"nonsense": 1}}', '{"snapshot": {"route": 3}}'])
def test_a_line_that_is_no_decision_is_refused(line):
    with pytest.raises(ValueError, match=r".+"):
        find_logged(line)


def test_a_difference_is_told():
    shot = next(each for each in map(make_snapshot, range(1000)) if len(decide(each).attempts) > 1)
    decision = decide(shot)
    assert difference(decision, decision) == ""
    turned = replace(decision, attempts=decision.attempts[::-1])
    assert difference(decision, turned).startswith("tried ")
    other = replace(decision, attempts=tuple(replace(each, reason="why not") for each in decision.attempts))
    assert "is now" in difference(decision, other)


@pytest.fixture
def handlers():
    config = parse_config(FILE, source="router.yaml")
    catalog = build_catalog(config)
    fleet, fitter = Fleet(catalog, restart_wait_s=3.0), build_fitter(config, catalog, Abilities(config))
    routes = ExplainRoutes(catalog=lambda: catalog, fleet=lambda: fleet, fitter=lambda: fitter).routes()
    return {route.method: route.handler for route in routes}


def asked(query=None, body=b"", models=None):
    principal = Principal(key_id="k", tenant="t", role="user", limits=KeyLimits(models=models))
    return Request(principal=principal, query=query or {}, body=body)


async def test_the_gateway_explains_a_model_and_a_request(handlers):
    told = orjson.loads((await handlers["GET"](asked({"model": "fast"}))).body)
    assert (told["target"], told["reason"]) == ("house/m", "first target")
    body = orjson.dumps({"model": "house/m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]})
    told = orjson.loads((await handlers["POST"](asked({"operation": Operation.MESSAGES.value}, body))).body)
    assert told["reason"] == "named by the caller"


@pytest.mark.parametrize(
    ("model", "target", "drops", "refuses"),
    [
        ("loose", "claude/claude-3-haiku", ["seed"], ""),
        ("strict", "house/m", [], "claude/claude-sonnet-5 cannot honour 'seed'"),
        ("hopeless", "", [], "claude/claude-sonnet-5 cannot honour 'seed'"),
    ],
)
async def test_fields_that_a_target_would_not_get_or_could_not_take_are_told(handlers, model, target, drops, refuses):
    body = orjson.dumps({"model": model, "seed": 5, "messages": [{"role": "user", "content": "x"}]})
    told = orjson.loads((await handlers["POST"](asked(body=body))).body)
    assert told["target"] == target
    assert (told["candidates"][0]["drops"], told["candidates"][0]["refuses"]) == (drops, refuses)
    assert target or told["reason"] == refuses


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (asked(), FieldError),
        (asked({"model": "nobody"}), NotFound),
        (asked({"model": "twice"}), NotFound),
        (asked({"model": "fast", "operation": "poems"}), InvalidRequest),
        (asked({"model": "fast"}, models=("house/m",)), PermissionDenied),
    ],
)
async def test_what_cannot_be_explained_is_refused(handlers, request_, error):
    with pytest.raises(error):
        await handlers["GET"](request_)
