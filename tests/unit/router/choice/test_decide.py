"""The choice of an address."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.router.choice.decide import decide, explain_no_target
from mlaas.router.types import Candidate, Need, Offer, Readiness, Route, Snapshot, Target

TARGETS = (Target(provider="local", model="a"), Target(provider="openai", model="b"))
CAN_TRY = (Readiness.READY, Readiness.PROBE)
RESTS = (Readiness.RESTING, Readiness.EXHAUSTED)


def candidate(target: Target, origin: str, state: Readiness = Readiness.READY, outstanding: int = 0) -> Candidate:
    return Candidate(target=target, origin=origin, readiness=state, num_outstanding=outstanding)


def snapshot(*candidates: Candidate, turn: int = 0, is_alias: bool = True) -> Snapshot:
    route = Route(model="default", targets=TARGETS, is_alias=is_alias)
    return Snapshot(route=route, candidates=candidates, turn=turn)


def origins(shot: Snapshot) -> list[str]:
    return [attempt.origin for attempt in decide(shot).attempts]


def test_targets_keep_their_order():
    assert origins(snapshot(candidate(TARGETS[0], "x", outstanding=9), candidate(TARGETS[1], "y"))) == ["x", "y"]


def test_the_replica_with_the_least_outstanding_requests_comes_first():
    local = TARGETS[0]
    assert origins(snapshot(candidate(local, "x", outstanding=2), candidate(local, "y", outstanding=1))) == ["y", "x"]


def test_equal_replicas_take_turns():
    replicas = [candidate(TARGETS[0], origin) for origin in "xyz"]
    assert [origins(snapshot(*replicas, turn=turn))[0] for turn in range(6)] == list("xyzxyz")


def test_a_replica_that_wants_a_probe_gets_it():
    replicas = [candidate(TARGETS[0], "x"), candidate(TARGETS[0], "y", Readiness.PROBE, 5)]
    assert origins(snapshot(*replicas)) == ["y", "x"]


def test_the_reason_names_what_was_skipped():
    shot = snapshot(candidate(TARGETS[0], "", Readiness.ABSENT), candidate(TARGETS[1], "y"))
    assert decide(shot).attempts[0].reason == "local/a has no live replica"
    shot = snapshot(candidate(TARGETS[1], "y"), is_alias=False)
    assert decide(shot).attempts[0].reason == "named by the caller"


def test_no_target_says_how_to_get_one():
    failure = explain_no_target(decide(snapshot(candidate(TARGETS[0], "", Readiness.ABSENT))))
    assert (failure.status, failure.retry_after_s) == (503, 5.0)
    assert "`mlaas deploy a`" in failure.message
    failure = explain_no_target(decide(snapshot(candidate(TARGETS[1], "", Readiness.UNSUPPORTED))))
    assert failure.status == 400


candidates = st.lists(
    st.builds(
        candidate,
        st.sampled_from(TARGETS),
        st.sampled_from(["http://1", "http://2", "http://3"]),
        st.sampled_from(list(Readiness)),
        st.integers(0, 5),
    ),
    max_size=6,
    unique_by=lambda each: (each.target, each.origin),
)


@given(candidates, st.integers(0, 1000), st.booleans(), st.booleans())
def test_a_decision_is_total_and_deterministic_and_loses_no_candidate(each, turn, is_alias, is_recovering):
    route = Route(model="default", targets=TARGETS, is_alias=is_alias)
    each.sort(key=lambda one: TARGETS.index(one.target))
    shot = Snapshot(route=route, candidates=tuple(each), turn=turn, is_recovering=is_recovering)
    decision = decide(shot)
    assert decision == decide(shot)
    tried = [(attempt.target, attempt.origin) for attempt in decision.attempts]
    skipped = [(skip.target, skip.origin) for skip in decision.skipped]
    assert sorted(map(str, tried + skipped)) == sorted(str((c.target, c.origin)) for c in each)
    allowed = CAN_TRY if is_alias else (*CAN_TRY, *RESTS)
    assert sorted(map(str, tried)) == sorted(str((c.target, c.origin)) for c in each if c.readiness in allowed)
    assert [TARGETS.index(target) for target, _ in tried] == sorted(TARGETS.index(target) for target, _ in tried)
    assert all(each.reason and each.reason.isascii() for each in (*decision.attempts, *decision.skipped))


def test_an_alias_whose_targets_all_rest_says_when_to_come_back():
    resting = [replace(candidate(t, str(i), Readiness.RESTING), rest_s=3.0 + i) for i, t in enumerate(TARGETS)]
    failure = explain_no_target(decide(snapshot(*resting)))
    assert (failure.status, failure.retry_after_s) == (429, 3.0)
    assert "rests, as the upstream asked, for 3 s more" in failure.message


def test_a_resting_target_that_the_caller_named_answers_for_itself():
    shot = snapshot(candidate(TARGETS[1], "y", Readiness.EXHAUSTED), is_alias=False)
    assert origins(shot) == ["y"]


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (Offer(context_tokens=100), "has a context of 100 tokens, and about 150 are needed"),
        (Offer(max_output_tokens=40), "writes 40 tokens at most, and 50 are asked for"),
        (Offer(lacks=("vision", "tools")), "cannot do tools"),
        (Offer(is_external=True, residency=("us",)), "does not keep data in eu"),
    ],
)
def test_a_candidate_that_cannot_take_the_request_is_skipped_with_the_reason(offer, reason):
    route = Route(model="default", targets=TARGETS, is_alias=True, residency=("eu",))
    shot = Snapshot(
        route=route,
        candidates=(replace(candidate(TARGETS[0], "x"), offer=offer), candidate(TARGETS[1], "y")),
        need=Need(input_tokens=100, output_tokens=50, features=("tools",)),
    )
    decision = decide(shot)
    assert [each.origin for each in decision.attempts] == ["y"]
    assert [each.reason for each in decision.skipped] == [reason]
    assert decision.attempts[0].reason == f"local/a {reason}"
    lone = replace(shot, candidates=shot.candidates[:1])
    assert explain_no_target(decide(lone)).code == "no_target_fits"
    assert decide(replace(lone, route=replace(route, is_alias=False))).attempts


def test_the_clusters_own_models_satisfy_every_residency():
    route = Route(model="default", targets=TARGETS, is_alias=True, residency=("eu",))
    assert decide(Snapshot(route=route, candidates=(candidate(TARGETS[0], "x"),))).attempts


def test_a_failover_names_only_what_stands_before():
    shot = snapshot(candidate(TARGETS[0], "x"), candidate(TARGETS[1], "", Readiness.UNCONFIGURED))
    assert decide(shot).attempts[0].reason == "first target"
