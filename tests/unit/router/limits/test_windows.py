import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas.router.limits.windows import GRAINS, Window

SPAN_S = 60.0
STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.001, 0.049, 0.05, 0.7, 29.9, 59.95, 60.0]), st.integers(1, 4)))


@settings(deadline=None)
@given(STEPS, st.integers(1, 10))
def test_no_60_seconds_hold_more_than_the_limit_and_no_unit_is_late_by_more_than_a_grain(steps, limit):
    window, now_s, used = Window(span_s=SPAN_S), 0.0, []
    for delay_s, units in steps:
        now_s += delay_s
        window.advance(now_s)
        if window.used + units <= limit:
            window.add(units, now_s=now_s)
            used.append((now_s, units))
        inside = sum(each for at_s, each in used if at_s > now_s - SPAN_S)
        nearly = sum(each for at_s, each in used if at_s > now_s - SPAN_S - 1.001 * SPAN_S / GRAINS)
        assert inside <= window.used <= nearly
        assert window.used <= limit


def test_a_unit_is_usable_again_after_the_window_and_one_grain():
    window = Window(span_s=SPAN_S)
    window.add(1, now_s=10.0)
    assert window.frees_in_s(1, now_s=10.0) == pytest.approx(60.05)
    window.advance(70.0499)
    assert window.used == 1
    window.advance(70.0501)
    assert window.used == 0


def test_fewer_units_than_reserved_count_less_at_once():
    window = Window(span_s=SPAN_S)
    bucket = window.add(100, now_s=0.0)
    window.correct(bucket, -70, now_s=1.0)
    assert window.used == 30
    window.advance(61.0)
    assert window.used == 0


def test_a_correction_after_the_window_changes_nothing_but_what_was_used_beyond_it():
    window = Window(span_s=SPAN_S)
    bucket = window.add(10, now_s=0.0)
    window.advance(61.0)
    window.correct(bucket, -5, now_s=61.0)
    assert window.used == 0
    window.correct(bucket, 5, now_s=61.0)
    assert window.used == 5


def test_when_enough_is_free_is_told_exactly():
    window = Window(span_s=SPAN_S)
    window.add(3, now_s=0.0)
    window.add(2, now_s=10.0)
    assert window.frees_in_s(3, now_s=20.0) == pytest.approx(40.05)
    assert window.frees_in_s(4, now_s=20.0) == pytest.approx(50.05)
    assert window.frees_in_s(6, now_s=20.0) is None
    assert window.empties_in_s(now_s=20.0) == pytest.approx(50.05)


def test_memory_does_not_grow_with_the_number_of_requests():
    window = Window(span_s=SPAN_S)
    for number in range(100_000):
        window.advance(number / 1000)
        window.add(1, now_s=number / 1000)
    assert len(window._buckets) <= GRAINS + 2
