"""The flow of attempts: every rule of retry and fallback, without a clock or a connection."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.base import Failure, FailureKind, ProviderFailed
from mlaas.router.flow import FlowLimits, plan_attempts
from mlaas.router.types import Attempt, Candidate, Decision, Event, Readiness, Route, Target, Wait

TARGETS = tuple(Target(provider="local", model=name) for name in "abc")
ROUTE = Route(model="alias", targets=TARGETS, is_alias=True)
LIMITS = FlowLimits()


def failure(kind: FailureKind) -> Failure:
    return Failure(kind=kind, status=502, code=kind.value, message="x")


def decision(num: int, *, may_recover: bool = False) -> Decision:
    attempts = tuple(Attempt(target=target, origin=f"http://{target.model}", reason="r") for target in TARGETS[:num])
    skipped = tuple(Candidate(target=each, origin="", readiness=Readiness.ABSENT) for each in TARGETS[num:])
    return Decision(route=ROUTE, attempts=attempts, skipped=skipped, may_recover=may_recover)


def drive(outcomes, *, first, limits=LIMITS):
    """Run a flow against outcomes, each a (failure kind or None, is_committed) pair; return its steps and its end."""
    now_s, steps = 0.0, []
    flow = plan_attempts(first, limits=limits, now_s=now_s)
    try:
        step = next(flow)
        for kind, is_committed in outcomes:
            steps.append(step)
            now_s += step.delay_s if isinstance(step, Wait) else 0.01
            if isinstance(step, Attempt) and kind is None:
                return steps, None
            happened = failure(kind) if isinstance(step, Attempt) and kind else None
            step = flow.send(Event(decision=first, now_s=now_s, failure=happened, is_committed=is_committed))
        return [*steps, step], None
    except ProviderFailed as error:
        return steps, error.failure


def test_each_address_is_tried_once_in_order():
    steps, end = drive([(FailureKind.FAILED, False)] * 9, first=decision(3))
    assert [step.target for step in steps] == list(TARGETS)
    assert end == failure(FailureKind.FAILED)
    assert steps[1].reason == "local/a failed: failed"


def test_a_rejected_request_is_not_tried_elsewhere():
    steps, end = drive([(FailureKind.REJECTED, False)] * 9, first=decision(3))
    assert len(steps) == 1
    assert end == failure(FailureKind.REJECTED)


def test_nothing_is_tried_once_bytes_have_reached_the_caller():
    steps, end = drive([(FailureKind.CLOSED, True)] * 9, first=decision(3))
    assert len(steps) == 1
    assert end == failure(FailureKind.CLOSED)


def test_the_only_replica_is_waited_for_and_tried_again():
    outcomes = [(FailureKind.REFUSED, False), (None, False), (None, False)]
    steps, end = drive(outcomes, first=decision(1))
    assert [type(step) for step in steps] == [Attempt, Wait, Attempt]
    assert end is None


def test_waiting_is_bounded():
    steps, end = drive([(FailureKind.REFUSED, False)] * 99, first=decision(1))
    assert end == failure(FailureKind.REFUSED)
    assert sum(step.delay_s for step in steps if isinstance(step, Wait)) <= LIMITS.restart_wait_s
    assert sum(isinstance(step, Attempt) for step in steps) <= LIMITS.max_attempts


def test_a_target_that_is_expected_back_is_waited_for_before_the_first_attempt():
    flow = plan_attempts(decision(0, may_recover=True), limits=LIMITS, now_s=0.0)
    assert isinstance(next(flow), Wait)
    step = flow.send(Event(decision=decision(1), now_s=0.1))
    assert isinstance(step, Attempt)


def test_a_model_without_any_replica_fails_at_once():
    steps, end = drive([], first=decision(0))
    assert steps == []
    assert (end.status, end.code) == (503, "model_unavailable")
    assert "mlaas deploy a" in end.message


@given(
    st.lists(st.tuples(st.sampled_from([*FailureKind, None]), st.booleans()), min_size=40, max_size=40),
    st.integers(0, 3),
    st.booleans(),
)
def test_a_flow_is_total_bounded_and_deterministic(outcomes, num, may_recover):
    first = decision(num, may_recover=may_recover)
    outcomes = [(kind, is_committed and kind is not None) for kind, is_committed in outcomes]
    steps, end = drive(outcomes, first=first)
    assert (steps, end) == drive(outcomes, first=first)
    attempts = [step for step in steps if isinstance(step, Attempt)]
    waits = [step for step in steps if isinstance(step, Wait)]
    assert len(attempts) <= LIMITS.max_attempts
    assert sum(wait.delay_s for wait in waits) <= LIMITS.restart_wait_s + 1e-9
    for index, (kind, is_committed) in enumerate(outcomes[: len(steps)]):
        if isinstance(steps[index], Attempt) and (is_committed or kind is FailureKind.REJECTED):
            assert index == len(steps) - 1


@pytest.mark.parametrize("wait_s", [0.0, 0.2])
def test_restart_wait_zero_never_waits(wait_s):
    limits = replace(LIMITS, restart_wait_s=wait_s)
    steps, _ = drive([(FailureKind.REFUSED, False)] * 50, first=decision(1), limits=limits)
    assert any(isinstance(step, Wait) for step in steps) is (wait_s > 0)
