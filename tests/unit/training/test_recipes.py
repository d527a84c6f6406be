"""Recipes: what is wrong is named, with its value and the way out."""

from pathlib import Path

import pytest

from mlaas.errors import ConfigError
from mlaas.training.recipes import Recipe, fingerprint, load_recipe, parse_recipe

SHIPPED = Path(__file__).parents[3] / "jobs" / "recipes" / "stdlib_tiny.toml"


def refusal(document: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(document, origin="r.toml")
    return caught.value.message


def recipe(**sections: dict[str, object]) -> dict[str, object]:
    return {"name": "m", **sections, "train": {"steps": 10, **sections.get("train", {})}}


def test_the_shipped_recipe_is_valid_and_names_the_demo_model() -> None:
    assert load_recipe(SHIPPED).name == "tiny-python"


def test_unknown_field_suggests_the_nearest_name() -> None:
    message = refusal(recipe(train={"learing_rate": 0.1}))
    assert "unknown field train.learing_rate" in message
    assert "did you mean learning_rate?" in message


def test_unknown_section_suggests_the_nearest_name() -> None:
    assert "unknown field modle; did you mean model?" in refusal({**recipe(), "modle": {}})


def test_field_in_the_wrong_section_is_sent_to_its_own() -> None:
    assert "unknown field model.vocab_size; it belongs to data.vocab_size" in refusal(recipe(model={"vocab_size": 512}))


def test_wrong_type_names_field_and_value() -> None:
    message = refusal(recipe(train={"steps": "many"}))
    assert "train.steps = 'many'" in message
    assert "integer" in message


def test_wrong_value_names_field_and_limit() -> None:
    assert "data.vocab_size = 12" in refusal(recipe(data={"vocab_size": 12}))


def test_every_wrong_field_is_reported_at_once() -> None:
    message = refusal({"train": {"stepz": 1}})
    assert "field name is missing" in message
    assert "field train.steps is missing" in message
    assert "unknown field train.stepz; did you mean steps?" in message


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"model": {"width": 100, "heads": 8}}, "width 100 is not a multiple of 2 x heads (16)"),
        ({"model": {"heads": 4, "kv_heads": 3}}, "heads 4 is not a multiple of kv_heads 3"),
        ({"train": {"sequences": 3}}, "train.sequences 3 is not a multiple of gang.workers 2"),
        ({"gang": {"workers": 2, "min_workers": 3}}, "gang.min_workers 3 is above gang.workers 2"),
        (
            {"train": {"sequences": 8}, "gang": {"workers": 4, "min_workers": 2}},
            "train.sequences 8 is not a multiple of every size from gang.min_workers on: 3",
        ),
        (
            {"train": {"log_every": 7}, "checkpoint": {"every_steps": 10}},
            "checkpoint.every_steps 10 is not a multiple of train.log_every 7",
        ),
    ],
)
def test_fields_that_do_not_fit_each_other(sections: dict[str, dict[str, object]], expected: str) -> None:
    assert expected in refusal(recipe(**sections))


def test_file_that_is_missing_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read"):
        load_recipe(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        load_recipe(tmp_path / "broken.toml")


def test_fingerprint_follows_recipe_and_data() -> None:
    one, other = (parse_recipe(recipe(train={"seed": seed}), origin="") for seed in (1, 2))
    assert fingerprint(one, data_hash="a") == fingerprint(one, data_hash="a")
    assert (
        len({fingerprint(one, data_hash="a"), fingerprint(other, data_hash="a"), fingerprint(one, data_hash="b")}) == 3
    )


def test_every_field_says_what_it_is() -> None:
    sections = [
        Recipe,
        *(info.annotation for info in Recipe.model_fields.values() if hasattr(info.annotation, "model_fields")),
    ]
    assert len(sections) == 6
    for section in sections:
        for name, info in section.model_fields.items():
            assert info.description, f"{section.__name__}.{name}"
