import math

import numpy as np
import pytest

from mlaas.scheduler.estimates import History, exceeded, outlook


def looked_up(sigma: float, attained_s: float, median_s: float = 1000.0):
    return outlook(np.array([math.log(median_s)]), np.array([sigma]), np.array([attained_s]))


def test_a_sure_estimate_is_shortest_remaining_time() -> None:
    assert looked_up(0.1, 0.0).rate[0] == pytest.approx(1 / 1000, rel=0.25)
    assert looked_up(0.1, 800.0).rate[0] > 3 * looked_up(0.1, 0.0).rate[0]


def test_an_unsure_estimate_favours_what_has_run_least() -> None:
    rates = [looked_up(2.5, attained).rate[0] for attained in (1_000.0, 10_000.0, 100_000.0)]
    assert rates == sorted(rates, reverse=True)


def test_mean_remaining_matches_the_distribution() -> None:
    rng = np.random.default_rng(1)
    for sigma in (0.5, 1.1, 2.0):
        draws = np.exp(rng.normal(math.log(1000.0), sigma, 2_000_000))
        for attained in (0.0, 500.0, 3_000.0):
            left = draws[draws > attained] - attained
            assert looked_up(sigma, attained).remaining_s[0] == pytest.approx(left.mean(), rel=0.06)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.1, 3.0])
def test_a_run_past_its_estimate_is_expected_to_go_on_longer_and_longer(sigma: float) -> None:
    ages = np.geomspace(5_000.0, 1e9, 60)
    left = outlook(np.full(60, math.log(1000.0)), np.full(60, sigma), ages).remaining_s
    assert np.isfinite(left).all()
    assert (np.diff(left) > 0).all()


def test_exceeded_estimates_double_until_they_hold() -> None:
    grown = exceeded(np.array([100.0, 100.0, 100.0]), np.array([50.0, 100.0, 450.0]))
    assert grown.tolist() == [100.0, 200.0, 800.0]


def taught(count: int, factor: float, sigma: float, **who: str) -> History:
    rng = np.random.default_rng(3)
    history = History()
    for _ in range(count):
        runtime = float(np.exp(rng.normal(7.0, 2.0)))
        estimate = runtime / factor * float(np.exp(rng.normal(0.0, sigma)))
        history.observe(tenant=who.get("tenant", "t"), name=who.get("name", ""), estimate_s=estimate, runtime_s=runtime)
    return history


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_a_steady_bias_of_estimates_is_learned(factor: float) -> None:
    belief = taught(3_000, factor, 0.3).believe(tenant="t", name="", estimate_s=1_000.0)
    assert math.exp(belief.log_median) == pytest.approx(1_000.0 * factor, rel=0.3)
    assert belief.sigma <= 0.6


def test_useless_estimates_are_read_as_useless() -> None:
    history = taught(3_000, 1.0, 20.0)
    short, long = (history.believe(tenant="t", name="", estimate_s=value) for value in (1.0, 1e6))
    assert abs(long.log_median - short.log_median) < 0.3 * math.log(1e6)
    assert short.sigma > 1.5


def test_without_an_estimate_runs_of_the_same_name_speak_first() -> None:
    history = taught(500, 1.0, 0.0)
    for _ in range(30):
        history.observe(tenant="ann", name="nightly", estimate_s=None, runtime_s=120.0)
    named = history.believe(tenant="ann", name="nightly", estimate_s=None)
    unknown = history.believe(tenant="bob", name="", estimate_s=None)
    assert math.exp(named.log_median) == pytest.approx(120.0, rel=0.3)
    assert named.sigma < unknown.sigma
