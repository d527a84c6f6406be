"""Chat completions requests as Messages requests; the SDK's own types check the shape."""

from __future__ import annotations

import re

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import ConfigDict, TypeAdapter, with_config

from mlaas.providers.base import FieldError
from mlaas.providers.thinking import mark_thinking, unsigned_thinking
from mlaas.providers.to_messages import DEFAULT_MAX_TOKENS, encode_messages_request

SHAPE = TypeAdapter(with_config(ConfigDict(extra="forbid"))(MessageCreateParamsNonStreaming))
USER = {"role": "user", "content": "hi"}


def encode(*messages, **fields):
    body = encode_messages_request("claude", {"model": "x", "messages": list(messages) or [USER], **fields}, model="m")
    # The SDK no longer types these two: its newest models refuse them, older ones and the API itself take them.
    SHAPE.validate_python({key: value for key, value in body.items() if key not in ("temperature", "top_p")})
    return body


def test_max_tokens_is_always_sent():
    assert encode()["max_tokens"] == DEFAULT_MAX_TOKENS
    assert encode(max_tokens=5)["max_tokens"] == 5
    assert encode(max_tokens=0)["max_tokens"] == 0
    assert encode(max_completion_tokens=6)["max_tokens"] == 6


def test_system_and_developer_messages_become_the_system_prompt():
    body = encode(
        {"role": "system", "content": "a"}, USER, {"role": "developer", "content": [{"type": "text", "text": "b"}]}
    )
    assert body["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert [message["role"] for message in body["messages"]] == ["user"]


def test_a_tool_loop_keeps_calls_and_results_together():
    call = {"type": "function", "id": "c1", "function": {"name": "add", "arguments": '{"a": 1}'}}
    other = {"type": "function", "id": "c2", "function": {"name": "now", "arguments": ""}}
    body = encode(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call, other], "refusal": None, "audio": None},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "noon"}]},
        {"role": "user", "content": "and?"},
    )
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == [
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
        {"type": "tool_use", "id": "c2", "name": "now", "input": {}},
    ]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "tool_result", "text"]


def test_results_of_tools_come_first_in_their_turn():
    call = {"type": "function", "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    body = encode(
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call, {**call, "id": "c2"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "user", "content": "hurry"},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
    )
    last = body["messages"][-1]["content"]
    assert [block.get("tool_use_id", block["type"]) for block in last] == ["c1", "c2", "text"]


def test_ids_of_other_providers_become_ids_that_anthropic_takes():
    call = {"type": "function", "id": "functions.add:0", "function": {"name": "add", "arguments": "{}"}}
    other = {**call, "id": "functions_add:0"}
    body = encode(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call, other]},
        {"role": "tool", "tool_call_id": "functions.add:0", "content": "1"},
        {"role": "tool", "tool_call_id": "functions_add:0", "content": "2"},
    )
    used = [block["id"] for block in body["messages"][1]["content"]]
    assert [block["tool_use_id"] for block in body["messages"][2]["content"]] == used
    assert len(set(used)) == 2
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", each) for each in used)


def test_thinking_goes_back_to_its_model_in_its_place_and_to_no_other():
    first = {"type": "thinking", "thinking": "a", "signature": "s1"}
    second = {"type": "redacted_thinking", "data": "d2"}
    call = {"type": "function", "id": "c", "function": {"name": "f", "arguments": "{}"}}
    marked = [mark_thinking(second, model="m", place=2), mark_thinking(first, model="m", place=0)]
    message = {"role": "assistant", "content": "x", "reasoning_content": "a", "tool_calls": [call]}
    said = encode(USER, {**message, "thinking_blocks": marked})["messages"][1]["content"]
    assert said == [first, {"type": "text", "text": "x"}, second, {**said[3], "type": "tool_use"}]
    foreign = [mark_thinking(first, model="other", place=0), unsigned_thinking("b")]
    said = encode(USER, {**message, "thinking_blocks": foreign})["messages"][1]["content"]
    assert [block["type"] for block in said] == ["text", "tool_use"]
    unknown = encode(USER, {**message, "thinking_blocks": [first, second]})["messages"][1]["content"]
    assert [block["type"] for block in unknown] == ["text", "tool_use"]


def test_cache_marks_reach_system_text_images_and_tools():
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}, **mark}
    text = {"type": "text", "text": "t", **mark}
    tool = {"type": "function", "function": {"name": "f"}, **mark}
    body = encode({"role": "system", "content": [text]}, {"role": "user", "content": [text, image]}, tools=[tool])
    assert body["system"] == [text]
    assert [block["cache_control"] for block in body["messages"][0]["content"]] == [mark["cache_control"]] * 2
    assert body["tools"][0]["cache_control"] == mark["cache_control"]


def test_tools_and_the_choice_among_them():
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
    tool = {
        "type": "function",
        "function": {"name": "add", "description": "d", "parameters": parameters, "strict": True},
    }
    body = encode(tools=[tool], tool_choice="required", parallel_tool_calls=False)
    assert body["tools"] == [{"name": "add", "description": "d", "input_schema": parameters, "strict": True}]
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    named = {"type": "function", "function": {"name": "add"}}
    assert encode(tools=[tool], tool_choice=named)["tool_choice"] == {"type": "tool", "name": "add"}
    assert encode(tools=[tool], tool_choice="none")["tool_choice"] == {"type": "none"}
    assert encode(tools=[tool], parallel_tool_calls=False)["tool_choice"]["type"] == "auto"


def test_images_come_inline_or_by_url():
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    ]
    blocks = encode({"role": "user", "content": parts})["messages"][0]["content"]
    assert blocks[1]["source"] == {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    assert blocks[2]["source"] == {"type": "url", "url": "https://example.com/a.png"}


def test_sampling_stop_schema_and_effort():
    schema = {"type": "object"}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = encode(temperature=0.5, top_p=0.9, stop="END", response_format=shape, reasoning_effort="high", user="u")
    assert (body["temperature"], body["top_p"], body["stop_sequences"]) == (0.5, 0.9, ["END"])
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}, "effort": "high"}
    assert body["metadata"] == {"user_id": "u"}


def test_neutral_values_pass():
    neutral = {"modalities": ["text"], "verbosity": "medium", "metadata": {}, "store": False}
    assert set(encode(n=1, presence_penalty=0, logprobs=False, logit_bias={}, seed=None, tools=[], **neutral)) == {
        "model",
        "max_tokens",
        "messages",
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"seed": 1}, "seed"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"temperature": 1.5}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"reasoning_effort": "minimal"}, "reasoning_effort"),
        ({"tools": [{"type": "custom"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "x"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"made_up": 1}, "made_up"),
        ({"service_tier": "flex"}, "service_tier"),
        (
            {"messages": [{"role": "assistant", "content": "x", "thinking_blocks": [{}]}]},
            "messages[0].thinking_blocks[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "made_up": 1}]}]},
            "messages[0].content[0].made_up",
        ),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "name": "bob"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": 1}]}]}, "messages[0].tool_calls[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}]},
            "messages[0].content[0]",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields, param):
    with pytest.raises(FieldError) as caught:
        encode_messages_request("claude", {"model": "x", "messages": [USER], **fields}, model="m")
    assert caught.value.param == param
