"""Overflow: what starts it, what ends it, and what authorises it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.router.choice.burst import CALM, pressure, step
from mlaas.router.choice.decide import decide
from mlaas.router.types import (
    NO_BURST,
    BurstLimits,
    BurstState,
    Candidate,
    EngineLoad,
    Need,
    Offer,
    Pace,
    Readiness,
    Route,
    Slo,
    Snapshot,
    Target,
)

HOME, PAID = Target(provider="house", model="m"), Target(provider="openai", model="gpt-5-mini")
LIMITS = BurstLimits(targets=(PAID,), max_queue=8, return_ratio=0.5, hold_s=10.0)
ROUTE = Route(model="fast", targets=(HOME,), is_alias=True, burst=LIMITS)
BURSTING = BurstState(is_active=True)


def home(waiting: int = 0, running: int = 4, *, origin: str = "h", state: Readiness = Readiness.READY, **more):
    engine = EngineLoad(num_running=running, num_waiting=waiting)
    return Candidate(target=HOME, origin=origin, readiness=state, engine=engine, **more)


def paid(**more):
    return Candidate(target=PAID, origin="p", readiness=Readiness.READY, offer=Offer(is_external=True, **more))


def tried(*candidates, route=ROUTE, **more) -> list[str]:
    return [str(each.target) for each in decide(Snapshot(route=route, candidates=candidates, **more)).attempts]


def test_the_home_comes_first_while_it_is_within_its_limits():
    decision = decide(Snapshot(route=ROUTE, candidates=(home(8), paid())))
    assert [each.target for each in decision.attempts] == [HOME]
    assert [each.reason for each in decision.skipped] == ["takes overflow only, and house/m has 8 waiting <= 8"]


def test_a_saturated_home_overflows_and_the_reason_has_the_figures():
    decision = decide(Snapshot(route=ROUTE, candidates=(home(14), paid())))
    assert [each.target for each in decision.attempts] == [PAID, HOME]
    assert decision.attempts[0].reason == "house/m saturated: 14 waiting > 8; burst to openai/gpt-5-mini"


def test_one_replica_with_room_keeps_the_traffic_at_home():
    assert tried(home(14, origin="a"), home(2, origin="b"), paid()) == ["house/m", "house/m"]


def test_requests_that_wait_in_the_gateway_count():
    assert tried(home(0, num_queued=9), paid()) == ["openai/gpt-5-mini", "house/m"]


def test_an_address_without_an_engine_counts_what_is_under_way():
    busy = Candidate(target=HOME, origin="h", readiness=Readiness.READY, num_outstanding=9)
    assert tried(busy, paid()) == ["openai/gpt-5-mini", "house/m"]
    assert tried(replace(busy, num_outstanding=8), paid()) == ["house/m"]


def test_a_predicted_wait_over_the_slo_overflows_and_an_idle_home_is_tried_whatever_it_was_like():
    pace = Pace(num_seen=9, ttft_p50_s=3, ttft_p95_s=4, ttft_idle_s=0.5, tokens_per_s=50, duration_s=2)
    route = replace(ROUTE, burst=replace(LIMITS, max_queue=None), slo=Slo(ttft_s=1.0))
    [reason] = [
        each.reason
        for each in decide(Snapshot(route=route, candidates=(home(4, 4, pace=pace), paid()))).attempts
        if each.target == PAID
    ]
    assert reason == "house/m saturated: first token in 2.50 s > 1 s; burst to openai/gpt-5-mini"
    assert tried(home(0, 4, pace=pace), paid(), route=route) == ["house/m"]
    slow = replace(pace, ttft_idle_s=9.0)
    assert tried(home(0, 1, pace=slow), paid(), route=route) == ["openai/gpt-5-mini", "house/m"]
    assert tried(home(0, 0, pace=slow), paid(), route=route) == ["house/m"]


def test_during_a_burst_the_bar_lies_lower_and_the_home_is_kept_busy_below_it():
    assert tried(home(6), paid(), burst=BURSTING) == ["openai/gpt-5-mini", "house/m"]
    assert tried(home(4), paid(), burst=BURSTING) == ["house/m"]


def test_a_cold_start_is_bridged_unless_the_alias_says_not():
    cold = Candidate(target=HOME, origin="", readiness=Readiness.STARTING)
    decision = decide(Snapshot(route=ROUTE, candidates=(cold, paid())))
    assert decision.attempts[0].reason == (
        "house/m is deployed and has no live replica yet; burst to openai/gpt-5-mini"
    )
    assert tried(cold, paid(), route=replace(ROUTE, burst=replace(LIMITS, cold_start=False))) == []


@pytest.mark.parametrize("state", [Readiness.DOWN, Readiness.RESTING, Readiness.EXHAUSTED, Readiness.ABSENT])
def test_no_outage_at_home_authorises_paid_traffic(state):
    assert tried(home(500, state=state), paid()) == []
    assert tried(home(500, state=state), paid(), burst=BURSTING) == []


def test_an_alias_that_lists_a_paid_target_in_its_own_order_authorises_it():
    route = Route(model="fast", targets=(HOME, PAID), is_alias=True)
    assert tried(home(500, state=Readiness.DOWN), paid(), route=route) == ["openai/gpt-5-mini"]


def test_a_target_listed_under_both_takes_overflow_only():
    assert tried(home(0), paid(), route=replace(ROUTE, targets=(HOME, PAID))) == ["house/m"]


def test_without_budget_or_residency_there_is_no_overflow():
    assert tried(home(14), paid(), need=Need(has_budget=False)) == ["house/m"]
    european = replace(ROUTE, residency=("eu",))
    assert tried(home(14), paid(residency=("us",)), route=european) == ["house/m"]
    assert tried(home(14), paid(residency=("eu", "us")), route=european) == ["openai/gpt-5-mini", "house/m"]


def test_without_a_home_there_is_no_pressure():
    assert pressure([], LIMITS, None) is CALM


def test_a_burst_ends_after_the_hold_and_not_before():
    state = step(NO_BURST, 1.5, LIMITS, now_s=0)
    assert state.is_active
    state = step(state, 0.4, LIMITS, now_s=1)
    assert state == BurstState(is_active=True, calm_since_s=1)
    assert step(state, 0.4, LIMITS, now_s=10.9).is_active
    assert step(state, 0.4, LIMITS, now_s=11) == NO_BURST
    interrupted = step(state, 0.6, LIMITS, now_s=5)
    assert interrupted == BURSTING


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 5)), max_size=200),
    st.floats(0.1, 0.9),
    st.floats(0.5, 20),
)
def test_a_burst_begins_only_over_the_limit_and_never_flaps_within_the_hold(looks, return_ratio, hold_s):
    limits = replace(LIMITS, return_ratio=return_ratio, hold_s=hold_s)
    state, now_s, last_over_s = NO_BURST, 0.0, -1e9
    for ratio, pause_s in looks:
        now_s += pause_s
        before, state = state, step(state, ratio, limits, now_s=now_s)
        if ratio > return_ratio:
            last_over_s = now_s if ratio > 1 or before.is_active else last_over_s
        if state.is_active and not before.is_active:
            assert ratio > 1
        if before.is_active and not state.is_active:
            assert now_s - last_over_s >= hold_s
