"""What a recipe asks of the scheduler."""

from __future__ import annotations

import pytest

from jobs.train_lm import _spec
from mlaas.scheduler.types import Gang, Kind, Resources
from mlaas.training.recipes import Recipe, parse_recipe


def recipe(**gang: object) -> Recipe:
    train = {"steps": 10, "sequences": 12, "max_minutes": 2.0}
    return parse_recipe({"name": "m", "train": train, "gang": gang}, origin="of the test")


@pytest.mark.parametrize(
    ("gang", "device", "expected"),
    [
        ({"workers": 2}, "cpu", Gang(Resources(cpus=1.0), min_workers=2, max_workers=2)),
        (
            {"workers": 4, "min_workers": 1, "threads": 8},
            "gpu",
            Gang(Resources(gpus=1.0, cpus=8.0), min_workers=1, max_workers=4),
        ),
    ],
    ids=["fixed, on CPUs", "elastic, on GPUs"],
)
def test_the_gang_is_the_recipes(gang: dict[str, object], device: str, expected: Gang) -> None:
    spec = _spec(recipe(**gang), device=device, queue="research")
    assert spec.gang == expected
    assert (spec.kind, spec.name, spec.queue, spec.command) == (Kind.TRAIN, "m", "research", None)


def test_a_budget_of_time_is_the_estimate_and_without_one_history_has_it() -> None:
    assert _spec(recipe(), device="cpu", queue="default").estimate_s == 120.0
    without = recipe().model_copy(update={"train": recipe().train.model_copy(update={"max_minutes": 0.0})})
    assert _spec(without, device="cpu", queue="default").estimate_s is None
