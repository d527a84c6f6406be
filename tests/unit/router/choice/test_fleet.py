"""What is live, as decisions see it."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from mlaas.providers.base import Failure, FailureKind, Operation
from mlaas.router.catalog import build_catalog
from mlaas.router.choice.decide import decide
from mlaas.router.choice.fleet import Fleet, no_offer
from mlaas.router.choice.health import Sign, sign_of
from mlaas.router.config_file import parse_config
from mlaas.router.types import EngineLoad, LocalEndpoint, Offer, Readiness, Route, Target, TokenPrice

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
    assert states(fleet, catalog, Operation.EMBEDDINGS)[0][:2] == [Readiness.STARTING, Readiness.UNSUPPORTED]


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


def test_every_api_that_is_a_chat_underneath_is_served_by_whoever_chats(fleet, catalog):
    for operation in (Operation.CHAT, Operation.COMPLETION, Operation.RESPONSES, Operation.MESSAGES):
        assert states(fleet, catalog, operation)[0][1] is Readiness.READY


CLAUDE = Target(provider="claude", model="m")
OTHER = Target(provider="claude", model="other")


def fail(fleet, kind, target=CLAUDE, retry_after_s=None, now_s=0.0):
    origin = "https://api.anthropic.com/v1"
    failure = Failure(kind=kind, status=500, code="x", message="x", retry_after_s=retry_after_s)
    fleet.sent(origin, now_s=now_s, target=target)
    fleet.ended(origin, sign_of(kind), now_s=now_s, target=target, failure=failure)


def state_of(fleet, catalog, target, now_s=0.0):
    route = Route(model=str(target), targets=(target,))
    [candidate] = fleet.snapshot(route, Operation.CHAT, now_s=now_s).candidates
    return candidate.readiness


@pytest.mark.parametrize(
    ("kind", "num", "own", "others"),
    [
        (FailureKind.FAILED, 3, Readiness.DOWN, Readiness.READY),
        (FailureKind.OVERLOADED, 1, Readiness.RESTING, Readiness.READY),
        (FailureKind.REFUSED, 1, Readiness.DOWN, Readiness.DOWN),
        (FailureKind.QUOTA, 1, Readiness.EXHAUSTED, Readiness.EXHAUSTED),
    ],
)
def test_a_models_trouble_is_its_own_and_a_hosts_is_everybodys(fleet, catalog, kind, num, own, others):
    for _ in range(num):
        fail(fleet, kind, retry_after_s=5.0)
    assert (state_of(fleet, catalog, CLAUDE), state_of(fleet, catalog, OTHER)) == (own, others)
    assert own in [each.readiness for each in fleet.unwell(now_s=0.0)]


def test_a_target_rests_as_long_as_it_asked(fleet, catalog):
    fail(fleet, FailureKind.OVERLOADED, retry_after_s=5.0)
    shot = fleet.snapshot(catalog.routes["all"], Operation.CHAT, now_s=1.0)
    assert [each.rest_s for each in shot.candidates if each.target == CLAUDE] == [4.0]
    assert state_of(fleet, catalog, CLAUDE, now_s=5.1) is Readiness.READY


def test_an_address_that_failed_once_and_is_up_is_not_unwell(fleet):
    fail(fleet, FailureKind.FAILED)
    assert fleet.unwell(now_s=0.0) == []


def test_invented_model_names_do_not_fill_the_memory(fleet):
    for number in range(5000):
        fail(fleet, FailureKind.OVERLOADED, target=Target(provider="claude", model=str(number)), retry_after_s=60.0)
    assert len(fleet.unwell(now_s=0.0)) <= 4096


def test_an_alias_sees_pace_price_and_requests_under_way_of_each_model(catalog):
    offer = Offer(is_external=True, price=TokenPrice(input_usd=1e-6, output_usd=2e-6))
    fleet = Fleet(catalog, restart_wait_s=3.0, offer_of=lambda target: offer)
    fleet.sent("https://api.anthropic.com/v1", now_s=0.0, target=CLAUDE)
    fleet.observe(
        "https://api.anthropic.com/v1", target=CLAUDE, ttft_s=0.2, duration_s=1.2, output_tokens=51, now_s=0.0
    )
    shot = fleet.snapshot(catalog.routes["all"], Operation.CHAT, now_s=1.0)
    [candidate] = [each for each in shot.candidates if each.target == CLAUDE]
    assert (candidate.num_outstanding, candidate.offer, candidate.pace.ttft_p50_s) == (1, offer, 0.2)


def test_what_an_engine_said_counts_for_seconds_and_is_corrected_by_what_was_sent_since(fleet, catalog):
    fleet.replace_endpoints([LocalEndpoint(model="a", url="http://h:1")])
    fleet.replace_engine("http://h:1/v1", EngineLoad(num_running=3), now_s=0.0)
    fleet.sent("http://h:1/v1", now_s=0.5)
    fleet.replace_engine("http://gone:1/v1", EngineLoad(), now_s=0.0)

    def local(now_s):
        return fleet.snapshot(catalog.routes["all"], Operation.CHAT, now_s=now_s).candidates[0]

    assert (local(1.0).engine, local(1.0).num_since_poll) == (EngineLoad(num_running=3), 1)
    assert (local(9.0).engine, local(9.0).num_since_poll) == (None, 0)


def test_requests_that_wait_for_a_place_are_shared_among_its_replicas(catalog):
    fleet = Fleet(catalog, restart_wait_s=3.0, num_queued=lambda model: 5)
    fleet.replace_endpoints([LocalEndpoint(model="a", url=f"http://h:{n}") for n in (1, 2)])
    shot = fleet.snapshot(catalog.routes["all"], Operation.CHAT, now_s=0.0)
    assert [each.num_queued for each in shot.candidates] == [3, 3, 0, 0]


def test_a_prompt_is_found_where_its_front_was_sent(fleet, catalog):
    fleet.replace_endpoints([LocalEndpoint(model="a", url=f"http://h:{n}") for n in (1, 2)])
    fleet.sent("http://h:2/v1", now_s=0.0, target=Target(provider="local", model="a"), blocks=(7, 8))
    shot = fleet.snapshot(catalog.routes["all"], Operation.CHAT, now_s=0.0, blocks=(7, 9))
    assert [each.matched_tokens for each in shot.candidates[:2]] == [0, 128]


def test_draws_are_even_and_the_same_for_one_conversation(fleet, catalog):
    route = catalog.routes["all"]
    draws = sorted(fleet.snapshot(route, Operation.CHAT, now_s=0.0).draw for _ in range(100))
    assert all(later - earlier < 0.03 for earlier, later in pairwise(draws))
    named = {fleet.snapshot(route, Operation.CHAT, now_s=0.0, session="me").draw for _ in range(9)}
    assert len(named) == 1


BURSTING = """
providers:
  house: {kind: openai_compatible, base_url: "http://127.0.0.1:1/v1", api_key: x}
  claude: {kind: anthropic, api_key: x}
models:
  all: {targets: [house/m], burst: {targets: [claude/m], max_queue: 2, hold_s: 10}}
"""


def test_a_burst_is_kept_between_requests_and_through_a_reload():
    catalog = build_catalog(parse_config(BURSTING, source="router.yaml"))
    fleet, house = Fleet(catalog, restart_wait_s=3.0), Target(provider="house", model="m")

    def first(now_s):
        return str(decide(fleet.snapshot(catalog.routes["all"], Operation.CHAT, now_s=now_s)).attempts[0].target)

    assert first(0.0) == "house/m"
    for _ in range(3):
        fleet.sent("http://127.0.0.1:1/v1", now_s=0.0, target=house)
    assert first(1.0) == "claude/m"
    assert list(fleet.bursting()) == ["all"]
    fleet.replace_catalog(catalog, no_offer)
    for _ in range(2):
        fleet.ended("http://127.0.0.1:1/v1", Sign.ALIVE, now_s=2.0, target=house)
    assert first(2.0) == "house/m"
    assert list(fleet.bursting()) == ["all"]
    assert first(13.0) == "house/m"
    assert list(fleet.bursting()) == []


def test_demand_counts_requests_that_went_elsewhere(fleet, catalog):
    for number in range(20):
        fleet.arrived(catalog.routes["all"], now_s=number / 10)
    [found] = fleet.demand(now_s=2.0, per_replica=8)
    assert (found.model, found.num_replicas, found.num_needed) == ("a", 0, 1)
    assert found.arrivals_per_s == pytest.approx(10, rel=0.1)


def test_an_account_without_money_says_nothing_about_another_account_at_the_same_url():
    file = """
providers:
  one: {kind: openai, api_key: x}
  two: {kind: openai, api_key: y}
"""
    fleet = Fleet(build_catalog(parse_config(file, source="router.yaml")), restart_wait_s=3.0)
    one, two = (Target(provider=name, model="m") for name in ("one", "two"))
    route = Route(model="both", targets=(one, two))
    origin = fleet.snapshot(route, Operation.CHAT, now_s=0.0).candidates[0].origin
    fleet.sent(origin, now_s=0.0, target=one)
    broke = Failure(kind=FailureKind.QUOTA, status=402, code="insufficient_quota", message="x")
    fleet.ended(origin, sign_of(broke.kind), now_s=0.0, target=one, failure=broke)
    shot = fleet.snapshot(route, Operation.CHAT, now_s=1.0)
    assert [each.readiness for each in shot.candidates] == [Readiness.EXHAUSTED, Readiness.READY]
