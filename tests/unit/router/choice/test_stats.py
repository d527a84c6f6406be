"""The pace of addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.router.choice.stats import WINDOW_S, Paces


def observe(paces, *, now_s=0.0, ttft_s=0.1, duration_s=1.1, tokens=51, address="a"):
    paces.observe(address, ttft_s=ttft_s, duration_s=duration_s, output_tokens=tokens, now_s=now_s)


def test_an_address_without_answers_has_no_pace():
    assert Paces().pace("a", now_s=0) is None


def test_a_streamed_answer_tells_first_token_and_speed_after_it():
    paces = Paces()
    observe(paces)
    pace = paces.pace("a", now_s=0)
    assert (pace.num_seen, pace.ttft_p50_s, pace.duration_s) == (1, 0.1, 1.1)
    assert pace.tokens_per_s == pytest.approx(50)


def test_a_whole_answer_tells_its_speed_alone():
    paces = Paces()
    observe(paces, ttft_s=None, duration_s=2.0, tokens=50)
    pace = paces.pace("a", now_s=0)
    assert (pace.ttft_p50_s, pace.tokens_per_s) == (0.0, 25.0)


def test_figures_are_of_the_last_minute():
    paces = Paces()
    for number in range(10):
        observe(paces, now_s=number, ttft_s=9.0, duration_s=10.0)
    observe(paces, now_s=WINDOW_S + 5, ttft_s=0.5)
    assert paces.pace("a", now_s=WINDOW_S + 5.5).ttft_p95_s == 9.0
    observe(paces, now_s=WINDOW_S + 20, ttft_s=0.5)
    assert paces.pace("a", now_s=WINDOW_S + 21).ttft_p95_s == 0.5
    assert paces.pace("a", now_s=2 * WINDOW_S + 21) is None


def test_quantiles_are_of_the_samples_themselves():
    paces = Paces()
    for number in range(1, 51):
        observe(paces, ttft_s=number / 10, duration_s=10)
    pace = paces.pace("a", now_s=0)
    assert (pace.ttft_idle_s, pace.ttft_p50_s, pace.ttft_p95_s) == (0.6, 2.6, 4.8)


def test_memory_is_bounded_whatever_names_callers_invent():
    paces = Paces()
    for number in range(3000):
        observe(paces, address=f"openai/{number}")
    assert paces.pace("openai/0", now_s=0) is None
    assert paces.pace("openai/2999", now_s=0) is not None
    assert len(paces._windows) == 1024


@given(st.lists(st.tuples(st.none() | st.floats(0, 9), st.floats(0, 99), st.integers(0, 999)), min_size=1))
def test_figures_are_finite_and_in_order(answers):
    paces = Paces()
    for ttft_s, more_s, tokens in answers:
        observe(paces, ttft_s=ttft_s, duration_s=(ttft_s or 0) + more_s, tokens=tokens)
    pace = paces.pace("a", now_s=0)
    assert 0 <= pace.ttft_idle_s <= pace.ttft_p50_s <= pace.ttft_p95_s
    assert 0 <= pace.tokens_per_s < float("inf")
    assert pace.num_seen == min(64, len(answers))
