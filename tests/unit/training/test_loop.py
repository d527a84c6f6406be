"""The pure decisions of the training loop."""

from hypothesis import given
from hypothesis import strategies as st

from mlaas.training.loop import learning_rate_scale, plan_steps


@given(st.integers(min_value=1, max_value=2000), st.floats(min_value=0, max_value=50))
def test_learning_rate_rises_then_falls_and_is_spent_after_the_last_step(steps: int, warmup_percent: float) -> None:
    scales = [learning_rate_scale(step=step, steps=steps, warmup_percent=warmup_percent) for step in range(steps)]
    assert all(0 < scale <= 1 for scale in scales)
    peak = scales.index(max(scales))
    assert scales[:peak] == sorted(scales[:peak])
    assert scales[peak:] == sorted(scales[peak:], reverse=True)
    assert learning_rate_scale(step=steps, steps=steps, warmup_percent=warmup_percent) == 0


def test_without_a_budget_the_recipe_decides() -> None:
    assert plan_steps(step=10, steps=300, elapsed_s=1e9, budget_s=0) == 300


def test_a_fast_machine_does_all_steps_and_a_slow_one_what_fits() -> None:
    assert plan_steps(step=10, steps=300, elapsed_s=5, budget_s=200) == 300
    assert plan_steps(step=10, steps=300, elapsed_s=20, budget_s=200) == 100


@given(
    st.integers(min_value=1, max_value=500),
    st.floats(min_value=0.1, max_value=1e4),
    st.floats(min_value=1, max_value=1e3),
)
def test_a_plan_is_never_behind_the_run_nor_beyond_the_recipe(step: int, elapsed_s: float, budget_s: float) -> None:
    planned = plan_steps(step=step, steps=500, elapsed_s=elapsed_s, budget_s=budget_s)
    assert min(step + 1, 500) <= planned <= 500
