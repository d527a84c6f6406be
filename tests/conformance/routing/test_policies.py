"""What every routing policy does, whatever the snapshot."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.router.choice.burst import is_over, pressure
from mlaas.router.choice.decide import decide, explain_no_target
from mlaas.router.choice.decision_log import decision_to_json, replay, snapshot_from_json, snapshot_to_json
from mlaas.router.choice.policies.table import RANKS
from mlaas.router.choice.sift import refusal
from mlaas.router.types import Readiness, RoutingPolicy
from tests.fakes.snapshots import snapshots


@pytest.fixture(scope="module", params=list(RoutingPolicy))
def policy(request):
    return request.param


def of(shot, policy):
    return replace(shot, route=replace(shot.route, policy=policy))


def test_every_policy_has_its_function():
    assert set(RANKS) == set(RoutingPolicy)


@given(shot=snapshots)
def test_a_policy_ranks_each_candidate_once_and_says_why(policy, shot):
    ranked = RANKS[policy](of(shot, policy), shot.candidates)
    assert sorted(id(each.candidate) for each in ranked) == sorted(map(id, shot.candidates))
    assert all(each.reason and each.reason.isascii() and each.reason.isprintable() for each in ranked)


@given(shot=snapshots)
def test_a_decision_is_deterministic_and_tries_or_skips_each_candidate(policy, shot):
    shot = of(shot, policy)
    decision = decide(shot)
    assert decision == decide(shot)
    ends = [(str(each.target), each.origin) for each in (*decision.attempts, *decision.skipped)]
    assert sorted(ends) == sorted((str(each.target), each.origin) for each in shot.candidates)
    assert all(each.reason for each in (*decision.attempts, *decision.skipped))
    if not decision.attempts:
        assert 400 <= explain_no_target(decision).status <= 503


@given(shot=snapshots)
def test_nobody_who_cannot_take_the_request_is_tried(policy, shot):
    shot = of(shot, policy)
    tried = {(each.target, each.origin) for each in decide(shot).attempts}
    assert not any(refusal(each, shot) for each in shot.candidates if (each.target, each.origin) in tried)


@given(shot=snapshots)
def test_no_unauthorised_paid_target_is_ever_tried(policy, shot):
    """A burst target is tried only for load or a cold start, with budget left and the residency that is asked for."""
    shot = of(shot, policy)
    route, burst = shot.route, shot.route.burst
    if burst is None:
        assert all(each.target in route.targets for each in decide(shot).attempts)
        return
    home = [each for each in shot.candidates if each.target not in burst.targets]
    able = [each for each in home if not refusal(each, shot)]
    is_loaded = bool(able) and is_over(shot.burst, pressure(able, burst, route.slo).ratio, burst)
    is_cold = not able and burst.cold_start and any(each.readiness is Readiness.STARTING for each in shot.candidates)
    for attempt in decide(shot).attempts:
        if attempt.target in burst.targets:
            assert is_loaded or is_cold
            assert shot.need.has_budget
            [candidate] = [each for each in shot.candidates if each.target == attempt.target]
            assert set(route.residency) <= set(candidate.offer.residency)
        else:
            assert attempt.target in route.targets


@given(shot=snapshots)
def test_a_decision_can_be_logged_and_replayed_exactly(policy, shot):
    shot = of(shot, policy)
    assert snapshot_from_json(snapshot_to_json(shot)) == shot
    assert replay(snapshot_to_json(shot)) == decide(shot)
    assert replay(decision_to_json(shot, decide(shot))) == decide(shot)


@given(shot=snapshots, kind=st.sampled_from([Readiness.DOWN, Readiness.RESTING, Readiness.ABSENT]))
def test_an_outage_at_home_authorises_no_paid_traffic(policy, shot, kind):
    shot = of(shot, policy)
    if shot.route.burst is None:
        return
    overflow = shot.route.burst.targets
    out = tuple(
        each if each.target in overflow else replace(each, readiness=kind, num_outstanding=500)
        for each in shot.candidates
    )
    # What takes only overflow is not deployed here, so nothing of it can be starting.
    out = tuple(replace(each, readiness=Readiness.READY) if each.target in overflow else each for each in out)
    assert decide(replace(shot, candidates=out)).attempts == ()
