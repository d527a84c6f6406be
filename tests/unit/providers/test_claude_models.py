"""What sets Claude models apart reaches the request, or is refused by name."""

from __future__ import annotations

import pytest

from mlaas.providers.base import FieldError
from mlaas.providers.claude_models import Thinking, find_model, is_same_model
from mlaas.providers.to_messages import encode_messages_request

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}


def encode(model, **fields):
    return encode_messages_request("claude", {"model": "x", "messages": [USER], **fields}, model=model)


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("claude-sonnet-4-5-20250929", Thinking.BUDGET),
        ("claude-opus-4-6", Thinking.ADAPTIVE),
        ("claude-opus-4-8", Thinking.ADAPTIVE),
        ("claude-opus-5", Thinking.DEFAULT),
        ("claude-opus-5-5", Thinking.ALWAYS),
        ("claude-haiku-5-5", Thinking.DEFAULT),
        ("claude-sonnet-5", Thinking.DEFAULT),
        ("claude-sonnet-5-5", Thinking.BETWEEN_TOOLS),
        ("claude-fable-5-20260301", Thinking.ALWAYS),
        ("claude-fable-5-2", Thinking.ALWAYS),
        ("something-else", Thinking.UNKNOWN),
    ],
)
def test_a_model_is_found_by_its_longest_prefix(model, thinking):
    assert find_model(model).thinking is thinking


def test_a_dated_snapshot_is_its_model_and_a_later_version_is_not():
    assert find_model("claude-fable-5-20260301").has_forced_tools
    assert not find_model("claude-fable-5-2").has_forced_tools
    assert is_same_model("claude-haiku-4-5-20251001", "claude-haiku-4-5")
    assert not is_same_model("claude-opus-5", "claude-opus-5-5")


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("claude-opus-5-5", "low", {"output_config": {"effort": "low"}}),
        ("claude-opus-4-7", "max", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
        ("claude-haiku-4-5", "high", {"thinking": {"type": "enabled", "budget_tokens": 6553}}),
        ("claude-haiku-4-5", "none", {}),
        ("claude-opus-4-7", "none", {}),
        ("claude-sonnet-5", "none", {"thinking": {"type": "disabled"}}),
        ("claude-sonnet-5-5", "none", {"thinking": {"type": "between_tools"}}),
    ],
)
def test_an_effort_is_said_as_the_model_takes_it(model, effort, expected):
    body = encode(model, reasoning_effort=effort)
    assert {key: body[key] for key in ("thinking", "output_config") if key in body} == expected


def test_a_budget_stays_between_its_least_and_max_tokens():
    body = encode("claude-haiku-4-5", reasoning_effort="low", max_tokens=1025)
    assert body["thinking"]["budget_tokens"] == 1024


def test_a_schema_and_an_effort_share_their_place():
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    config = encode("claude-opus-5-5", reasoning_effort="low", response_format=shape)["output_config"]
    assert config == {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        ("claude-opus-4-7", {"temperature": 0.5}, "temperature"),
        ("claude-sonnet-5", {"top_p": 0.5}, "top_p"),
        ("claude-haiku-5-5", {"top_k": 5}, "top_k"),
        ("claude-opus-4-6", {"temperature": 0.5, "reasoning_effort": "low"}, "temperature"),
        ("claude-haiku-4-5", {"temperature": 0.5, "reasoning_effort": "low"}, "temperature"),
        ("claude-haiku-4-5", {"max_tokens": 1024, "reasoning_effort": "low"}, "max_tokens"),
        ("claude-opus-5-5", {"reasoning_effort": "none"}, "reasoning_effort"),
        ("claude-opus-5-5", {"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        (
            "claude-sonnet-5-5",
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice",
        ),
        (
            "claude-haiku-4-5",
            {"tools": [TOOL], "tool_choice": "required", "reasoning_effort": "low"},
            "tool_choice",
        ),
    ],
)
def test_what_a_model_does_not_take_is_refused_by_name(model, fields, param):
    with pytest.raises(FieldError) as caught:
        encode(model, **fields)
    assert caught.value.param == param


def test_the_default_of_a_sampling_field_passes_as_nothing():
    assert not {"temperature", "top_p"} & set(encode("claude-opus-5-5", temperature=1, top_p=1.0))
    assert encode("claude-haiku-4-5", temperature=0, top_k=5)["temperature"] == 0
