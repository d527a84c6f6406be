"""The health of an address."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.base import Failure, FailureKind
from mlaas.router.choice.health import UP, Sign, readiness, rest, sign_of, step
from mlaas.router.types import Readiness


def after(*signs: Sign, now_s: float = 0.0):
    health = UP
    for sign in signs:
        health = step(health, sign, now_s=now_s)
    return health


def test_a_refused_connection_takes_an_address_down_at_once():
    down = after(Sign.SENT, Sign.REFUSED)
    assert readiness(down, now_s=0.1) is Readiness.DOWN
    assert readiness(down, now_s=0.3) is Readiness.PROBE


def test_other_failures_take_it_down_at_the_third_in_a_row():
    assert readiness(after(Sign.FAILED, Sign.FAILED), now_s=0) is Readiness.READY
    assert readiness(after(Sign.FAILED, Sign.FAILED, Sign.ALIVE, Sign.FAILED), now_s=0) is Readiness.READY
    assert readiness(after(Sign.FAILED, Sign.FAILED, Sign.FAILED), now_s=0) is Readiness.DOWN


def test_one_request_probes_and_its_success_brings_the_address_back():
    probed = step(after(Sign.REFUSED), Sign.SENT, now_s=1.0)
    assert readiness(probed, now_s=1.0) is Readiness.DOWN
    assert step(probed, Sign.ALIVE, now_s=1.1) == UP


def test_a_failed_probe_doubles_the_pause():
    failed = step(step(after(Sign.REFUSED), Sign.SENT, now_s=1.0), Sign.REFUSED, now_s=1.0)
    assert readiness(failed, now_s=1.4) is Readiness.DOWN
    assert readiness(failed, now_s=1.6) is Readiness.PROBE


def test_a_probe_whose_caller_left_lets_another_probe():
    left = step(step(after(Sign.REFUSED), Sign.SENT, now_s=1.0), Sign.UNKNOWN, now_s=1.1)
    assert readiness(left, now_s=1.1) is Readiness.PROBE


def test_an_answer_that_is_an_error_of_the_caller_is_a_sign_of_life():
    assert sign_of(FailureKind.REJECTED) is Sign.ALIVE
    assert sign_of(FailureKind.OVERLOADED) is Sign.ALIVE
    assert sign_of(FailureKind.CLOSED) is Sign.FAILED


def test_an_address_that_fails_every_other_time_goes_down_by_its_error_rate():
    health, num = UP, 0
    while readiness(health, now_s=0) is Readiness.READY:
        health = step(step(health, Sign.FAILED, now_s=0), Sign.FAILED, now_s=0)
        health = step(health, Sign.ALIVE, now_s=0) if readiness(health, now_s=0) is Readiness.READY else health
        num += 1
        assert num < 50
    assert num > 3


def test_rare_failures_are_forgotten():
    health = after(Sign.FAILED, *[Sign.ALIVE] * 20)
    assert health == UP


def overloaded(kind=FailureKind.OVERLOADED, retry_after_s=None):
    return Failure(kind=kind, status=429, code="x", message="x", retry_after_s=retry_after_s)


def test_an_address_rests_as_long_as_it_asks_and_an_hour_at_most():
    resting = rest(UP, overloaded(retry_after_s=7.0), now_s=1.0)
    assert readiness(resting, now_s=7.9) is Readiness.RESTING
    assert readiness(resting, now_s=8.0) is Readiness.READY
    assert rest(UP, overloaded(retry_after_s=1e9), now_s=0.0).rest_until_s == 3600.0
    assert rest(UP, overloaded(), now_s=0.0) == UP
    assert rest(UP, overloaded(FailureKind.FAILED, 7.0), now_s=0.0) == UP


def test_an_account_without_money_rests_for_minutes():
    resting = rest(UP, overloaded(FailureKind.QUOTA), now_s=0.0)
    assert readiness(resting, now_s=299.0) is Readiness.EXHAUSTED


def test_an_answer_that_was_under_way_does_not_end_a_rest():
    resting = rest(after(Sign.FAILED, Sign.FAILED, Sign.FAILED), overloaded(retry_after_s=60.0), now_s=0.0)
    alive = step(resting, Sign.ALIVE, now_s=1.0)
    assert readiness(alive, now_s=2.0) is Readiness.RESTING
    assert readiness(alive, now_s=61.0) is Readiness.READY


@given(st.lists(st.tuples(st.sampled_from(list(Sign)), st.floats(0, 20)), max_size=60))
def test_no_address_is_down_for_ever(events):
    health, now_s = UP, 0.0
    for sign, pause_s in events:
        now_s += pause_s
        health = step(health, sign, now_s=now_s)
        assert health.down_until_s <= now_s + 10.0
        if sign is Sign.ALIVE:
            assert readiness(health, now_s=now_s) is Readiness.READY
    released = step(health, Sign.UNKNOWN, now_s=now_s)
    assert readiness(released, now_s=now_s + 10.0) in (Readiness.READY, Readiness.PROBE)
