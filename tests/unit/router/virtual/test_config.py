"""What a virtual model may be, and that none asks itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlaas.errors import ConfigError
from mlaas.router.virtual.config import (
    CascadeConfig,
    CheckConfig,
    EnsembleConfig,
    PipelineConfig,
    check_recursion,
    members,
)


@pytest.mark.parametrize(
    ("section", "value", "why"),
    [
        (CascadeConfig, {"steps": ["a"], "check": {"min_chars": 1}}, "at least 2"),
        (CascadeConfig, {"steps": ["a", "b"]}, "Field required"),
        (CheckConfig, {}, "at least one of regex, schema"),
        (CheckConfig, {"regex": "("}, "not a regular expression"),
        (CheckConfig, {"schema": {"type": "objekt"}}, "not a JSON Schema"),
        (CheckConfig, {"min_charz": 1}, "Extra inputs"),
        (EnsembleConfig, {"models": ["a", "b"], "combine": "judge"}, "need a judge"),
        (EnsembleConfig, {"models": ["a", "b"], "judge": "c"}, "majority takes none"),
        (EnsembleConfig, {"models": ["a", "b"], "quorum": 3}, "a quorum of 3 cannot come of 2"),
        (PipelineConfig, {"steps": []}, "at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(section, value: dict, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        section.model_validate(value)


def test_members_are_all_that_may_be_asked() -> None:
    cascade = CascadeConfig.model_validate({"steps": ["a", "b"], "check": {"judge": "j"}})
    ensemble = EnsembleConfig.model_validate({"models": ["a", "a", "b"], "combine": "synthesis", "judge": "b"})
    pipeline = PipelineConfig.model_validate({"steps": [{"model": "a"}, {"model": "b"}]})
    assert [members(each) for each in (cascade, ensemble, pipeline)] == [("a", "b", "j"), ("a", "b"), ("a", "b")]


def test_a_circle_is_shown() -> None:
    with pytest.raises(ConfigError, match="b -> c -> b") as refused:
        check_recursion({"a": ("b",), "b": ("x", "c"), "c": ("b",)})
    assert refused.value.code == "virtual_model_circle"
    with pytest.raises(ConfigError, match="a -> a"):
        check_recursion({"a": ("a",)})


NAMES = st.sampled_from("abcdef")


@given(st.dictionaries(NAMES, st.sets(NAMES, max_size=3), max_size=6))
def test_circles_are_found_exactly_when_there_are_some(graph: dict[str, set[str]]) -> None:
    left = {name: set(asked) & graph.keys() for name, asked in graph.items()}
    while leaves := [name for name, asked in left.items() if not asked]:
        left = {name: asked - set(leaves) for name, asked in left.items() if name not in leaves}
    if left:
        with pytest.raises(ConfigError):
            check_recursion(graph)
    else:
        check_recursion(graph)
