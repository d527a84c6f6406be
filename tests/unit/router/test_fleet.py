"""What is live, as decisions see it."""

from __future__ import annotations

import time

import pytest

from mlaas.providers.base import Operation
from mlaas.router.catalog import build_catalog
from mlaas.router.config_file import parse_config
from mlaas.router.decide import decide
from mlaas.router.fleet import Fleet
from mlaas.router.health import Sign
from mlaas.router.types import LocalEndpoint, Readiness

FILE = """
providers:
  claude: {kind: anthropic, api_key: x}
  openai: {api_key_env: MLAAS_TEST_UNSET_KEY}
models:
  all: {targets: [local/a, claude/m, openai/m]}
"""


@pytest.fixture
def catalog():
    return build_catalog(parse_config(FILE, source="router.yaml"))


@pytest.fixture
def fleet(catalog):
    return Fleet(catalog, restart_wait_s=3.0)


def states(fleet, catalog, operation=Operation.CHAT):
    shot = fleet.snapshot(catalog.routes["all"], operation, now_s=time.monotonic())
    return [candidate.readiness for candidate in shot.candidates], shot


def test_each_target_has_its_own_reason_not_to_be_tried(fleet, catalog):
    assert states(fleet, catalog)[0] == [Readiness.ABSENT, Readiness.READY, Readiness.UNCONFIGURED]
    fleet.replace_deployed(["a"])
    assert states(fleet, catalog, Operation.COMPLETION)[0][:2] == [Readiness.STARTING, Readiness.UNSUPPORTED]


def test_a_model_whose_last_endpoint_has_just_gone_is_recovering(fleet, catalog):
    assert not states(fleet, catalog)[1].is_recovering
    fleet.replace_endpoints([LocalEndpoint(model="a", url="http://h:1")])
    assert states(fleet, catalog)[0][0] is Readiness.READY
    fleet.replace_endpoints([])
    assert states(fleet, catalog)[1].is_recovering


def test_load_spreads_over_replicas(fleet, catalog):
    fleet.replace_endpoints([LocalEndpoint(model="a", url=f"http://h:{port}/") for port in (1, 2, 3)])
    route = catalog.resolve("local/a", local_models=fleet.local_models)
    chosen = []
    for _ in range(9):
        origin = decide(fleet.snapshot(route, Operation.CHAT, now_s=0.0)).attempts[0].origin
        fleet.sent(origin, now_s=0.0)
        chosen.append(origin)
    assert sorted(chosen.count(origin) for origin in set(chosen)) == [3, 3, 3]
    fleet.ended(chosen[0], Sign.ALIVE, now_s=0.0)
    assert decide(fleet.snapshot(route, Operation.CHAT, now_s=0.0)).attempts[0].origin == chosen[0]


def test_a_replica_that_comes_back_starts_with_a_clean_record(fleet, catalog):
    endpoint = LocalEndpoint(model="a", url="http://h:1")
    fleet.replace_endpoints([endpoint])
    fleet.sent("http://h:1/v1", now_s=time.monotonic())
    fleet.ended("http://h:1/v1", Sign.REFUSED, now_s=time.monotonic())
    assert states(fleet, catalog)[0][0] is Readiness.DOWN
    fleet.replace_endpoints([])
    fleet.replace_endpoints([endpoint])
    assert states(fleet, catalog)[0][0] is Readiness.READY


def test_an_answer_that_ends_after_its_replica_has_gone_counts_nowhere(fleet):
    fleet.replace_endpoints([LocalEndpoint(model="a", url="http://h:1")])
    fleet.sent("http://h:1/v1", now_s=0.0)
    fleet.replace_endpoints([])
    fleet.ended("http://h:1/v1", Sign.FAILED, now_s=0.0)
    assert fleet.local_models == frozenset()


def test_each_replica_is_sent_its_own_key_and_it_is_not_shown(fleet):
    endpoints = [LocalEndpoint(model="a", url=f"http://h:{n}", api_key=f"secret-{n}") for n in (1, 2)]
    fleet.replace_endpoints(endpoints)
    assert fleet.authorization("http://h:2/v1") == {"authorization": "Bearer secret-2"}
    assert fleet.authorization("http://h:3/v1") == {}
    assert "secret" not in repr(endpoints)
