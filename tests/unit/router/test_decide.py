"""The choice of an address."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlaas.router.decide import decide, explain_no_target
from mlaas.router.types import Candidate, Readiness, Route, Snapshot, Target

TARGETS = (Target(provider="local", model="a"), Target(provider="openai", model="b"))
CAN_TRY = (Readiness.READY, Readiness.PROBE)


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
    shot = Snapshot(route=route, candidates=tuple(each), turn=turn, is_recovering=is_recovering)
    decision = decide(shot)
    assert decision == decide(shot)
    tried = [(attempt.target, attempt.origin) for attempt in decision.attempts]
    assert sorted(map(str, tried)) == sorted(str((c.target, c.origin)) for c in each if c.readiness in CAN_TRY)
    assert [TARGETS.index(target) for target, _ in tried] == sorted(TARGETS.index(target) for target, _ in tried)
    assert all(attempt.reason and attempt.reason.isascii() for attempt in decision.attempts)
    assert {c.target for c in decision.skipped}.isdisjoint(target for target, _ in tried)
