"""What leads from one state of a workload to the next: pure, event by event."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.scheduler.live.lifecycle import (
    Cancelled,
    CommandEnded,
    DeadlinePassed,
    DependencyEnded,
    Effect,
    GaveBack,
    HandedOver,
    HolderDied,
    Lost,
    Moment,
    NotPlaced,
    Placed,
    Started,
    State,
    ToldToYield,
    backoff_s,
    step,
)
from mlaas.scheduler.live.types import Outcome, lease_id_of, workload_of
from mlaas.scheduler.requests.spec import Retries
from mlaas.scheduler.types import Placement
from mlaas.store.workloads import WorkloadRecord
from tests.fakes.live_scheduler import job

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SPEC = job(retries=Retries(max_retries=1, backoff_s=10.0))
HELD = SPEC.__class__(gang=SPEC.gang)
EVENTS = (
    Placed(Placement((("n0", 1),)), "fits", 3.0),
    Started(),
    NotPlaced("no room", 0.5),
    ToldToYield("for another"),
    ToldToYield("for another", Placement((("n0", 1),))),
    DeadlinePassed(),
    CommandEnded(0, ""),
    CommandEnded(1, "oops"),
    CommandEnded(-15, ""),
    *(GaveBack(outcome, "said so") for outcome in Outcome),
    Lost("node n0 is gone"),
    HolderDied("silent"),
    HandedOver(),
    DependencyEnded("x has failed"),
    Cancelled("ann"),
)


def record(state=State.PENDING, **fields):
    return WorkloadRecord(
        id="w", tenant="ann", queue="default", kind="job", name="", spec={}, priority=0, state=state.value,
        reason="because", submitted_at=NOW, sequence=1, **fields,
    )  # fmt: skip


@given(events=st.lists(st.sampled_from(EVENTS), max_size=12), spec=st.sampled_from((SPEC, HELD)))
def test_whatever_comes_in_whatever_order_what_has_ended_stays_and_each_gang_is_given_back(events, spec):
    now, held = record(), False
    for event in events:
        after = step(now, spec, event, Moment(NOW, gained_s=2.0))
        if State(now.state).is_final:
            assert after.record is now
            assert not after.effects
        assert after.record.reason
        assert after.record.attempt - now.attempt == (Effect.START in after.effects)
        if Effect.START in after.effects:
            assert not held
            held = True
        if Effect.END in after.effects:
            assert held
            held = False
        assert held == State(after.record.state).holds_gang
        assert (after.record.yield_by_at is not None) == (after.record.state == State.YIELDING)
        assert bool(after.events) == (after.record is not now)
        now = after.record


@pytest.mark.parametrize(
    ("event", "state", "failures"),
    [
        (Lost("node n0 is gone"), "pending", 0),
        (NotPlaced("no room", 0.5), "pending", 0),
        (GaveBack(Outcome.YIELDED, ""), "pending", 0),
        (CommandEnded(1, ""), "pending", 1),
        (CommandEnded(-9, ""), "pending", 1),
        (CommandEnded(0, ""), "succeeded", 0),
        (Cancelled("ann"), "cancelled", 0),
        (DeadlinePassed(), "running", 0),
    ],
)
def test_only_an_end_of_its_own_counts_as_a_failure(event, state, failures):
    after = step(record(State.RUNNING, attempt=1), SPEC, event, Moment(NOW)).record
    assert (after.state, after.num_failures) == (state, failures)


def test_a_failed_attempt_gains_nothing_and_a_preempted_one_keeps_what_it_had():
    running = record(State.RUNNING, attempt=1, attained_s=5.0)
    assert step(running, SPEC, CommandEnded(1, ""), Moment(NOW, gained_s=7.0)).record.attained_s == 5.0
    told = step(running, SPEC, ToldToYield("for x"), Moment(NOW)).record
    assert step(told, SPEC, CommandEnded(-15, ""), Moment(NOW, gained_s=7.0)).record.attained_s == 12.0
    assert step(told, SPEC, DeadlinePassed(), Moment(NOW, gained_s=7.0)).record.attained_s == 12.0


@pytest.mark.parametrize(
    ("goes_on", "preemptions", "then"),
    [
        (None, 1, "goes back to the queue"),
        (Placement((("n0", 1),)), 0, "goes on with 1 worker on n0"),
        (Placement((("n1", 1), ("n2", 1))), 0, "moves to n1, n2"),
    ],
)
def test_a_resize_or_a_move_is_no_preemption_and_says_where_to(goes_on, preemptions, then):
    running = record(State.RUNNING, attempt=1, placement=[["n0", 2]])
    told = step(running, SPEC, ToldToYield("for x", goes_on), Moment(NOW)).record
    assert told.num_preemptions == preemptions
    assert told.reason == f"told to yield within {SPEC.yield_grace_s:g} s, and {then}: for x"
    yielded = step(told, SPEC, CommandEnded(-15, ""), Moment(NOW, is_booked=goes_on is not None)).record
    assert ("goes on at once" in yielded.reason) == (goes_on is not None)


def test_a_command_that_ends_well_after_the_signal_has_done_its_work_and_is_told_so():
    told = step(record(State.RUNNING, attempt=1), SPEC, ToldToYield("for x"), Moment(NOW)).record
    ended = step(told, SPEC, CommandEnded(0, ""), Moment(NOW)).record
    assert ended.state == "succeeded"
    assert ended.reason.endswith("exit code 0 after it was told to yield, which says that its work is done")


def test_the_signal_to_a_gang_that_is_being_placed_is_sent_once_it_runs():
    told = step(record(State.STARTING, attempt=1), SPEC, ToldToYield("for x"), Moment(NOW))
    assert (told.record.state, told.effects) == ("yielding", ())
    assert step(told.record, SPEC, Started(), Moment(NOW)).effects == (Effect.ASK_TO_YIELD,)


@given(failures=st.integers(1, 2000), backoff=st.floats(0.0, 1e6), most=st.floats(0.0, 1e6))
def test_back_off_doubles_up_to_its_bound(failures, backoff, most):
    retries = Retries(max_retries=5, backoff_s=backoff, max_backoff_s=most)
    assert 0.0 <= backoff_s(retries, failures) <= most
    assert backoff_s(retries, failures) == min(most, backoff * 2.0 ** min(failures - 1, 60))


@pytest.mark.parametrize("attempt", [1, 12])
def test_a_lease_names_its_workload_and_attempt(attempt):
    assert workload_of(lease_id_of("a-1", attempt)) == ("a-1", attempt)
    assert workload_of("a-1") == ("a-1", 0)
    assert workload_of("a-1.x") == ("a-1", 0)
