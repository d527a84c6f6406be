"""The pure decisions of the training loop."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mlaas.training.loop import Position, learning_rate_scale, plan_steps


@given(st.integers(min_value=1, max_value=2000), st.floats(min_value=0, max_value=50))
def test_learning_rate_rises_then_falls_and_is_spent_after_the_last_step(steps: int, warmup_percent: float) -> None:
    scales = [learning_rate_scale(step=step, steps=steps, warmup_percent=warmup_percent) for step in range(steps)]
    assert all(0 < scale <= 1 for scale in scales)
    peak = scales.index(max(scales))
    assert scales[:peak] == sorted(scales[:peak])
    assert scales[peak:] == sorted(scales[peak:], reverse=True)
    assert learning_rate_scale(step=steps, steps=steps, warmup_percent=warmup_percent) == 0


def at(step: int, *, steps: int = 300, elapsed_s: float) -> Position:
    return Position(step=step, steps=steps, elapsed_s=elapsed_s)


def test_without_a_budget_the_recipe_decides() -> None:
    assert plan_steps(at(10, elapsed_s=1e9), steps=300, budget_s=0) == 300


def test_a_fast_machine_does_all_steps_and_a_slow_one_what_fits() -> None:
    assert plan_steps(at(10, elapsed_s=5), steps=300, budget_s=200) == 300
    assert plan_steps(at(10, elapsed_s=20), steps=300, budget_s=200) == 100


def test_a_slow_start_is_forgiven_and_the_end_is_final() -> None:
    assert plan_steps(at(50, steps=100, elapsed_s=20), steps=300, budget_s=200) == 300
    assert plan_steps(at(100, steps=100, elapsed_s=190), steps=300, budget_s=200) == 100


@given(
    step=st.integers(min_value=1, max_value=500),
    elapsed_s=st.floats(min_value=0.1, max_value=1e4),
    budget_s=st.floats(min_value=1, max_value=1e3),
)
def test_a_plan_is_never_behind_the_run_nor_beyond_the_recipe(step: int, elapsed_s: float, budget_s: float) -> None:
    planned = plan_steps(at(step, steps=500, elapsed_s=elapsed_s), steps=500, budget_s=budget_s)
    assert min(step + 1, 500) <= planned <= 500


@given(st.lists(st.floats(min_value=0.01, max_value=30), min_size=200, max_size=200))
def test_any_run_ends_within_its_budget_and_one_step(durations_s: list[float]) -> None:
    position, budget_s = at(0, steps=200, elapsed_s=0), 60.0
    while position.step < position.steps:
        moved = at(position.step + 1, steps=position.steps, elapsed_s=position.elapsed_s + durations_s[position.step])
        position = replace(moved, steps=plan_steps(moved, steps=200, budget_s=budget_s))
    assert position.elapsed_s <= budget_s + 2 * max(durations_s)
