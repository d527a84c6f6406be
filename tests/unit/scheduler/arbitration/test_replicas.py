"""How many replicas a deployment is wished: bounds, speed up, hold down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.errors import ConfigError
from mlaas.scheduler.arbitration.decide import decide_replicas
from mlaas.scheduler.arbitration.types import Load, Share, ShareSnapshot, ShareState, Wish, WishCode
from mlaas.scheduler.types import Resources

COLD_S = 20.0


def share(*, floor=1, ceiling=8, ttft_slo_s=None, hold_s=60.0):
    return Share(
        name="m", version=1, worker=Resources(gpus=1), floor=floor, ceiling=ceiling, ttft_slo_s=ttft_slo_s,
        hold_s=hold_s,
    )  # fmt: skip


def load(needed, *, ready=1, waiting=0, running=0, ttft_p95_s=None):
    return Load(num_ready=ready, num_needed=needed, num_waiting=waiting, num_running=running, ttft_p95_s=ttft_p95_s)


def decide(seen, *, now_s=0.0, last=None, of=None):
    state = ShareState(share=of or share(), load=seen, last=last, cold_start_s=COLD_S)
    (wish,) = decide_replicas(ShareSnapshot(now_s=now_s, deployments=(state,)))
    return wish


def had(num_replicas, **memory):
    return Wish(name="m", num_replicas=num_replicas, code=WishCode.STEADY, reason="", **memory)


def test_a_new_deployment_starts_at_its_floor():
    assert decide(load(0), of=share(floor=2)).num_replicas == 2


def test_demand_raises_at_once_and_never_above_the_ceiling():
    wish = decide(load(30), last=had(1))
    assert (wish.num_replicas, wish.code, wish.raised_s) == (8, WishCode.DEMAND, 0.0)


def test_a_queue_beyond_its_slo_raises_what_the_count_of_requests_does_not():
    wish = decide(load(2, ready=2, waiting=40, running=16), last=had(2))
    assert (wish.num_replicas, wish.code) == (4, WishCode.QUEUE)
    assert "40 requests wait for 2 replicas; 8 may" in wish.reason


def test_the_same_queue_asks_for_no_more_while_the_replicas_it_asked_for_boot():
    seen = load(2, ready=2, waiting=40, running=16)
    raised = decide(seen, last=had(2))
    assert decide(seen, now_s=1.0, last=raised).num_replicas == raised.num_replicas


def test_late_first_tokens_raise_once_and_again_only_when_the_new_replicas_can_have_helped():
    of = share(ttft_slo_s=1.0)
    first = decide(load(1, running=4, ttft_p95_s=3.0), last=had(1), of=of)
    assert (first.num_replicas, first.code) == (2, WishCode.TTFT)
    stale = load(1, ready=2, running=4, ttft_p95_s=3.0)
    assert decide(stale, now_s=COLD_S, last=first, of=of).num_replicas == 2
    assert decide(stale, now_s=COLD_S + 15.0, last=first, of=of).num_replicas == 3


def test_late_first_tokens_of_a_model_that_nobody_asks_now_raise_nothing():
    assert decide(load(0, ttft_p95_s=9.0), last=had(1), of=share(ttft_slo_s=1.0)).num_replicas == 1


def test_less_is_given_back_only_after_the_hold_and_down_to_its_peak():
    wish = decide(load(2), now_s=0.0, last=had(6))
    assert (wish.num_replicas, wish.code, wish.calm_since_s) == (6, WishCode.HOLD, 0.0)
    wish = decide(load(4), now_s=30.0, last=wish)
    wish = decide(load(1), now_s=59.0, last=wish)
    assert wish.num_replicas == 6
    wish = decide(load(1), now_s=60.0, last=wish)
    assert (wish.num_replicas, wish.code, wish.reason) == (4, WishCode.CALM, "needed at most 4 for 60 s")


def test_a_replica_that_is_slow_to_start_is_held_for_twice_that():
    of = share(hold_s=5.0)
    wish = decide(load(1), now_s=0.0, last=had(2), of=of)
    assert decide(load(1), now_s=2 * COLD_S - 1, last=wish, of=of).num_replicas == 2
    assert decide(load(1), now_s=2 * COLD_S, last=wish, of=of).num_replicas == 1


def test_without_news_it_keeps_what_it_has_and_forgets_that_it_was_calm():
    wish = decide(None, last=had(5, calm_since_s=0.0, calm_peak=1), now_s=1000.0)
    assert (wish.num_replicas, wish.code, wish.calm_since_s) == (5, WishCode.BLIND, None)


def test_a_lower_ceiling_binds_at_once():
    wish = decide(load(6), last=had(6), of=share(ceiling=3))
    assert (wish.num_replicas, wish.code) == (3, WishCode.BOUNDS)


def test_a_clock_that_jumps_back_begins_the_hold_anew():
    wish = decide(load(1), now_s=10.0, last=had(4, calm_since_s=500.0, calm_peak=1))
    assert (wish.num_replicas, wish.calm_since_s) == (4, 10.0)


@pytest.mark.parametrize("wrong", [{"floor": 0}, {"floor": 9}, {"ttft_slo_s": 0.0}, {"hold_s": float("nan")}])
def test_a_share_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match="deployment m"):
        share(**wrong)


loads = st.one_of(
    st.none(),
    st.builds(
        Load,
        num_ready=st.integers(0, 20),
        num_needed=st.integers(0, 50),
        num_waiting=st.integers(0, 500),
        num_running=st.integers(0, 500),
        ttft_p95_s=st.none() | st.floats(0, 100),
    ),
)


@given(seen=st.lists(st.tuples(st.floats(0.0, 30.0), loads), min_size=1, max_size=60))
def test_noise_never_breaks_bounds_and_never_lowers_within_the_hold(seen):
    of = share(floor=2, ceiling=6, ttft_slo_s=1.0)
    now_s, last, changed_s = 0.0, None, None
    for elapsed_s, each in seen:
        now_s += elapsed_s
        wish = decide(each, now_s=now_s, last=last, of=of)
        assert 2 <= wish.num_replicas <= 6
        assert wish.reason
        before = 2 if last is None else last.num_replicas
        if wish.num_replicas < before:
            assert changed_s is not None
            assert now_s - changed_s >= of.hold_s
        if wish.num_replicas != before:
            changed_s = now_s
        last = wish
