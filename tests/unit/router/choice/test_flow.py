"""The flow of attempts: every rule of retry and fallback, without a clock or a connection."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.base import Failure, FailureKind, ProviderFailed
from mlaas.router.choice.flow import FlowLimits, plan_attempts
from mlaas.router.types import Attempt, Decision, Event, Hedge, Readiness, Route, Skip, Target, Wait

TARGETS = tuple(Target(provider="local", model=name) for name in "abc")
ROUTE = Route(model="alias", targets=TARGETS, is_alias=True)
LIMITS = FlowLimits()


def failure(kind: FailureKind, retry_after_s: float | None = None) -> Failure:
    return Failure(kind=kind, status=502, code=kind.value, message="x", retry_after_s=retry_after_s)


def decision(num: int, *, may_recover: bool = False) -> Decision:
    attempts = tuple(Attempt(target=target, origin=f"http://{target.model}", reason="r") for target in TARGETS[:num])
    state = Readiness.ABSENT
    skipped = tuple(Skip(target=each, origin="", readiness=state, reason=state.value) for each in TARGETS[num:])
    return Decision(route=ROUTE, attempts=attempts, skipped=skipped, may_recover=may_recover)


def drive(outcomes, *, first, limits=LIMITS, may_retry=True, retry_after_s=None):
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
            happened = failure(kind, retry_after_s) if isinstance(step, Attempt) and kind else None
            event = Event(decision=first, now_s=now_s, failure=happened, is_committed=is_committed, may_retry=may_retry)
            step = flow.send(event)
        return [*steps, step], None
    except ProviderFailed as error:
        return steps, error.failure


def targets_of(steps):
    return [step.target if isinstance(step, Attempt) else None for step in steps]


def test_each_address_is_tried_once_in_order_and_once_more_after_a_pause():
    steps, end = drive([(FailureKind.FAILED, False)] * 9, first=decision(3))
    assert targets_of(steps) == [*TARGETS, None, *TARGETS]
    assert [step.is_retry for step in steps if isinstance(step, Attempt)] == [False] * 3 + [True] * 3
    assert end == failure(FailureKind.FAILED)
    assert steps[1].reason == "local/a failed: failed"


@pytest.mark.parametrize("kind", [FailureKind.TIMEOUT, FailureKind.QUOTA, FailureKind.DENIED, FailureKind.OVERLOADED])
def test_what_a_second_try_cannot_help_moves_on_and_is_not_tried_again(kind):
    steps, end = drive([(kind, False)] * 9, first=decision(3))
    assert targets_of(steps) == list(TARGETS)
    assert end == failure(kind)


def test_without_a_retry_budget_other_targets_are_tried_and_none_twice():
    steps, end = drive([(FailureKind.FAILED, False)] * 9, first=decision(3), may_retry=False)
    assert targets_of(steps) == list(TARGETS)
    assert end == failure(FailureKind.FAILED)


def test_a_refused_connection_is_no_retry_since_nothing_was_received():
    outcomes = [(FailureKind.REFUSED, False), (None, False), (None, False)]
    steps, _ = drive(outcomes, first=decision(1), may_retry=False)
    assert targets_of(steps) == [TARGETS[0], None, TARGETS[0]]
    assert not steps[-1].is_retry


def test_an_overloaded_upstream_is_given_the_time_it_asks_for():
    outcomes = [(FailureKind.OVERLOADED, False), (None, False), (None, False)]
    steps, _ = drive(outcomes, first=decision(1), retry_after_s=1.5)
    assert targets_of(steps) == [TARGETS[0], None, TARGETS[0]]
    assert steps[1].delay_s == pytest.approx(1.5)
    steps, end = drive(outcomes, first=decision(1), retry_after_s=7.0)
    assert targets_of(steps) == [TARGETS[0]]
    assert end.retry_after_s == 7.0


def hedged(num: int = 2) -> Decision:
    return replace(decision(num), route=replace(ROUTE, hedge_after_s=0.5))


def test_a_silent_attempt_gets_a_hedge_beside_it():
    flow = plan_attempts(hedged(), limits=LIMITS, now_s=0.0)
    step = next(flow)
    assert (step.target, step.hedge_after_s) == (TARGETS[0], 0.5)
    step = flow.send(Event(decision=hedged(), now_s=0.5, is_slow=True))
    assert isinstance(step, Hedge)
    assert (step.attempt.target, step.attempt.is_retry) == (TARGETS[1], True)
    assert step.attempt.reason == "local/a is silent for 0.5 s"


def test_when_a_hedge_and_its_attempt_both_fail_neither_is_tried_again():
    flow = plan_attempts(hedged(3), limits=LIMITS, now_s=0.0)
    next(flow)
    flow.send(Event(decision=hedged(3), now_s=0.5, is_slow=True))
    timeout = failure(FailureKind.TIMEOUT)
    step = flow.send(Event(decision=hedged(3), now_s=1.0, failure=timeout, hedge_failure=timeout))
    assert step.target == TARGETS[2]
    assert step.hedge_after_s is None


def test_nothing_is_hedged_without_a_second_address_or_a_retry_budget():
    assert next(plan_attempts(hedged(1), limits=LIMITS, now_s=0.0)).hedge_after_s is None
    flow = plan_attempts(hedged(3), limits=LIMITS, now_s=0.0)
    next(flow)
    event = Event(decision=hedged(3), now_s=0.1, failure=failure(FailureKind.TIMEOUT), may_retry=False)
    assert flow.send(event).hedge_after_s is None


def test_a_route_bounds_its_own_attempts():
    first = replace(decision(3), route=replace(ROUTE, max_attempts=2))
    steps, _ = drive([(FailureKind.FAILED, False)] * 9, first=first)
    assert targets_of(steps) == list(TARGETS[:2])


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


def test_a_replica_is_waited_for_as_long_as_its_breaker_holds_requests_back():
    flow = plan_attempts(decision(1), limits=LIMITS, now_s=0.0)
    next(flow)
    held_back = decision(0, may_recover=True)
    refused = failure(FailureKind.REFUSED)
    assert isinstance(flow.send(Event(decision=held_back, now_s=0.0, failure=refused)), Wait)
    assert isinstance(flow.send(Event(decision=held_back, now_s=0.1)), Wait)
    assert isinstance(flow.send(Event(decision=decision(1), now_s=0.3)), Attempt)


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
    st.booleans(),
    st.none() | st.floats(0, 10),
)
def test_a_flow_is_total_bounded_and_deterministic(outcomes, num, may_recover, may_retry, retry_after_s):
    first = decision(num, may_recover=may_recover)
    outcomes = [(kind, is_committed and kind is not None) for kind, is_committed in outcomes]
    options = {"first": first, "may_retry": may_retry, "retry_after_s": retry_after_s}
    steps, end = drive(outcomes, **options)
    assert (steps, end) == drive(outcomes, **options)
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
