"""What autoscaling reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlaas.router.choice.demand import demand
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


def test_a_rate_is_right_from_the_first_seconds_and_fades():
    rate = Rate()
    assert rate.per_s(now_s=0) == 0
    for number in range(100):
        rate.count(now_s=number / 10)
    assert rate.per_s(now_s=10) == pytest.approx(10, rel=0.05)
    assert rate.per_s(now_s=130) < 0.1
