"""The retry budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlaas.router.choice.retry_budget import RetryBudget


def spend_all(budget, now_s):
    num = 0
    while budget.allows(now_s=now_s) and num < 10_000:
        budget.spend(now_s=now_s)
        num += 1
    return num


def test_a_quiet_gateway_may_retry_a_little():
    budget = RetryBudget(ratio=0.2, min_per_s=10)
    assert spend_all(budget, 0.0) == 10
    assert spend_all(budget, 0.5) == 5


def test_a_busy_gateway_may_retry_a_fifth_of_its_requests():
    budget = RetryBudget(ratio=0.2, min_per_s=0)
    for _ in range(1001):
        budget.earn(now_s=0.0)
    assert spend_all(budget, 0.0) == 200


def test_what_is_not_used_is_lost():
    budget = RetryBudget(ratio=0.2, min_per_s=0)
    for _ in range(1000):
        budget.earn(now_s=0.0)
    assert spend_all(budget, 60.0) == 0


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 50)), max_size=60), st.floats(0, 1), st.integers(0, 20))
def test_retries_never_exceed_ratio_and_floor(steps, ratio, min_per_s):
    budget = RetryBudget(ratio=ratio, min_per_s=min_per_s)
    now_s, num_requests, num_retries = 0.0, 0, 0
    for pause_s, requests in steps:
        now_s += pause_s
        for _ in range(requests):
            budget.earn(now_s=now_s)
        num_requests += requests
        num_retries += spend_all(budget, now_s)
        assert num_retries <= ratio * num_requests + min_per_s * (now_s + 1) + 1e-6
