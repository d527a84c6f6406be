"""Parts of a gang put together to the state of one command."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlaas.scheduler.live.ports import CommandState
from mlaas.scheduler.on_ray.parts import PartState, merge


def parts(*exit_codes: int | None, num_parts: int | None = None) -> list[PartState]:
    total = num_parts or len(exit_codes)
    return [
        PartState(lease_id="w.1", rank=rank, num_parts=total, exit_code=code, last_line=f"line {rank}")
        for rank, code in enumerate(exit_codes)
    ]


def test_a_gang_runs_until_all_have_succeeded():
    assert merge(parts(0, None)) == ([CommandState("w.1", None)], {})
    assert merge(parts(0, 0)) == ([CommandState("w.1", 0, "line 0")], {})


def test_the_first_own_failure_speaks_for_the_gang_and_not_those_who_were_killed_after_it():
    assert merge(parts(-9, None, 3, 0)) == ([CommandState("w.1", 3, "line 2")], {})


def test_a_gang_of_which_parts_are_unknown_is_broken():
    found = parts(None, 0, num_parts=3)
    assert merge(found) == ([], {"w.1": found})


def test_a_failed_part_is_a_failed_gang_though_others_are_lost():
    assert merge(parts(2, num_parts=3)) == ([CommandState("w.1", 2, "line 0")], {})


@given(st.lists(st.sampled_from([None, 0, 1, -9, -15]), min_size=1, max_size=6), st.randoms())
def test_each_lease_is_in_one_of_both_and_the_order_says_nothing(exit_codes, random):
    found = parts(*exit_codes)
    shuffled = list(found)
    random.shuffle(shuffled)
    whole, broken = merge(shuffled)
    assert (whole, broken) == merge(found)
    assert not broken
    assert (whole[0].exit_code == 0) == all(code == 0 for code in exit_codes)
