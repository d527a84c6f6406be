"""Choosing among several keys."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.base import Failure, FailureKind, ProviderFailed
from mlaas.providers.key_pool import REST_S, KeyPool


def failure(kind: FailureKind, status: int, retry_after_s: float | None = None) -> Failure:
    return Failure(kind=kind, status=status, code="x", message="x", retry_after_s=retry_after_s)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 40))
def test_any_stretch_of_picks_keeps_the_shares(weights, num_picks):
    pool = KeyPool(weights)
    counts = Counter(pool.pick(0.0) for _ in range(num_picks))
    for index, weight in enumerate(weights):
        assert abs(counts[index] - num_picks * weight / sum(weights)) < len(weights)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_a_whole_round_is_exact_and_smooth(weights):
    pool = KeyPool(weights)
    picks = [pool.pick(0.0) for _ in range(sum(weights))]
    assert Counter(picks) == dict(enumerate(weights))


@pytest.mark.parametrize(
    ("seen", "rest_s"),
    [
        (failure(FailureKind.OVERLOADED, 429, 7.0), 7.0),
        (failure(FailureKind.OVERLOADED, 429), REST_S[FailureKind.OVERLOADED]),
        (failure(FailureKind.DENIED, 502), REST_S[FailureKind.DENIED]),
        (failure(FailureKind.QUOTA, 402), REST_S[FailureKind.QUOTA]),
        (failure(FailureKind.QUOTA, 402, 3600.0), 3600.0),
        (failure(FailureKind.OVERLOADED, 503, 7.0), 0.0),
        (failure(FailureKind.DENIED, 404), 0.0),
        (failure(FailureKind.FAILED, 500), 0.0),
        (failure(FailureKind.FAILED, 502), 0.0),
    ],
)
def test_a_key_that_is_refused_rests_and_comes_back(seen, rest_s):
    pool = KeyPool([1, 1])
    assert pool.report(0, seen, now_s=10.0) is bool(rest_s)
    if not rest_s:
        assert {pool.pick(10.0) for _ in range(2)} == {0, 1}
        return
    assert {pool.pick(10.0 + rest_s - 0.01) for _ in range(5)} == {1}
    assert 0 in {pool.pick(10.0 + rest_s) for _ in range(2)}


def test_when_all_rest_the_soonest_says_when():
    pool = KeyPool([1, 5, 1])
    pool.report(0, failure(FailureKind.OVERLOADED, 429, 20.0), now_s=0.0)
    pool.report(1, failure(FailureKind.OVERLOADED, 429, 5.0), now_s=1.0)
    pool.report(2, failure(FailureKind.QUOTA, 402, 90.0), now_s=1.0)
    with pytest.raises(ProviderFailed) as caught:
        pool.pick(2.0)
    assert (pool.is_awake(2.0), pool.is_awake(6.0)) == (False, True)
    assert caught.value.failure.retry_after_s == pytest.approx(4.0)
    assert caught.value.failure.status == 429
    assert pool.pick(6.0) == 1


def test_a_second_refusal_does_not_shorten_the_rest():
    pool = KeyPool([1])
    pool.report(0, failure(FailureKind.OVERLOADED, 429, 20.0), now_s=0.0)
    pool.report(0, failure(FailureKind.OVERLOADED, 429, 1.0), now_s=0.0)
    with pytest.raises(ProviderFailed):
        pool.pick(19.0)
    assert pool.pick(20.0) == 0
