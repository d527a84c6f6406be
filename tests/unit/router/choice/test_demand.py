"""What autoscaling reads."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from mlaas.router.choice.demand import combine, demand
from mlaas.router.choice.demand_board import FRESH_S, DemandBoard
from mlaas.router.choice.rate import Rate
from mlaas.router.types import Candidate, EngineLoad, Pace, Readiness, Target

TARGET = Target(provider="local", model="m")
PACE = Pace(num_seen=1, ttft_p50_s=1, ttft_p95_s=1, ttft_idle_s=1, tokens_per_s=1, duration_s=4.0)


def replica(waiting=0, running=0, queued=0, pace=None):
    load = EngineLoad(num_running=running, num_waiting=waiting)
    return Candidate(target=TARGET, origin="h", readiness=Readiness.READY, engine=load, num_queued=queued, pace=pace)


def test_nobody_asks():
    assert demand("m", [replica()], arrivals_per_s=0, per_replica=8).num_needed == 0


def test_a_model_without_replicas_needs_one_as_soon_as_someone_asks():
    starting = Candidate(target=TARGET, origin="", readiness=Readiness.STARTING, num_queued=0)
    found = demand("m", [starting], arrivals_per_s=0.1, per_replica=8)
    assert (found.num_replicas, found.num_needed) == (0, 1)


def test_what_waits_here_and_in_engines_needs_places():
    found = demand("m", [replica(10, 8, 3), replica(0, 8, 3)], arrivals_per_s=1, per_replica=8)
    assert (found.num_replicas, found.num_waiting, found.num_running, found.num_needed) == (2, 16, 16, 4)


def test_overflow_that_others_serve_still_needs_replicas_here():
    assert demand("m", [replica(0, 8, pace=PACE)], arrivals_per_s=10, per_replica=8).num_needed == 5


def test_the_slowest_replica_tells_how_late_first_tokens_come():
    slow = replace(PACE, ttft_p95_s=3.0)
    assert demand("m", [replica(pace=PACE), replica(pace=slow)], arrivals_per_s=1, per_replica=8).ttft_p95_s == 3.0
    assert demand("m", [replica()], arrivals_per_s=1, per_replica=8).ttft_p95_s is None


def test_what_engines_say_counts_once_and_what_waits_or_arrives_at_each_gateway_replica_adds_up():
    late = replace(PACE, ttft_p95_s=3.0)
    one = demand("m", [replica(10, 8, 3)], arrivals_per_s=1, per_replica=8)
    other = demand("m", [replica(9, 8, 5, late)], arrivals_per_s=2, per_replica=8)
    both = combine([one, other], per_replica=8)
    assert (both.num_replicas, both.num_waiting, both.num_running, both.num_queued) == (1, 18, 8, 8)
    assert (both.arrivals_per_s, both.num_needed, both.ttft_p95_s) == (3, 4, 3.0)
    assert combine([one], per_replica=8) == one


def test_arrivals_at_two_gateway_replicas_need_more_than_those_at_either():
    seen = demand("m", [replica(0, 8, pace=PACE)], arrivals_per_s=5, per_replica=8)
    assert (seen.num_needed, combine([seen, seen], per_replica=8).num_needed) == (3, 5)


def test_a_gateway_replica_adds_what_the_others_have_posted_lately(tmp_path):
    now_s = [time.time()]
    one, other, third = (
        DemandBoard(tmp_path / "demand", replica=name, clock=lambda: now_s[0]) for name in ("one", "other", "third")
    )
    seen = demand("m", [replica(0, 8, 3)], arrivals_per_s=1, per_replica=8)
    elsewhere = replace(seen, model="n")
    assert one.total([seen], per_replica=8) == (seen,)
    for board, found in ((one, [seen]), (other, [seen, elsewhere]), (third, [seen])):
        board.post(found)
    assert [(each.model, each.num_waiting) for each in one.total([seen], per_replica=8)] == [("m", 9), ("n", 3)]
    third.close()
    (tmp_path / "demand" / "of-another-version.json").write_text('[{"model": "m"}]')
    assert [(each.model, each.num_waiting) for each in one.total([], per_replica=8)] == [("m", 3), ("n", 3)]
    now_s[0] += 100 * FRESH_S
    assert one.total([seen], per_replica=8) == (seen,)


def test_a_rate_is_right_from_the_first_seconds_and_fades():
    rate = Rate()
    assert rate.per_s(now_s=0) == 0
    for number in range(100):
        rate.count(now_s=number / 10)
    assert rate.per_s(now_s=10) == pytest.approx(10, rel=0.05)
    assert rate.per_s(now_s=130) < 0.1
