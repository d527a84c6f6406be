"""What a Messages request says as a chat, and what it cannot say there."""

from __future__ import annotations

import orjson
import pytest

from mlaas.providers.base import Call, FieldError, Operation
from mlaas.providers.thinking import unsigned_thinking
from mlaas.router.dialects.messages import CountTokens, Messages

MESSAGES = Messages()
USER = {"role": "user", "content": "hi"}
TOOL = {"name": "add", "description": "d", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}


def call_of(*messages, is_stream=False, **fields):
    fields = {"model": "x", "max_tokens": 9, "messages": list(messages) or [USER], **fields}
    MESSAGES.check(fields)
    body = orjson.dumps(fields)
    headers = {"anthropic-beta": "b"}
    operation = Operation.MESSAGES
    return Call(operation=operation, model="x", is_stream=is_stream, fields=fields, body=body, headers=headers)


def encode(*messages, **fields):
    return MESSAGES.to_chat(call_of(*messages, **fields)).fields


def test_a_stream_asks_for_its_usage():
    chat = MESSAGES.to_chat(call_of(is_stream=True, stream=True))
    assert (chat.operation, chat.is_stream, chat.headers) == (Operation.CHAT, True, {"anthropic-beta": "b"})
    assert chat.fields["stream_options"] == {"include_usage": True}
    assert orjson.loads(chat.body) == chat.fields


def test_sampling_and_bounds_keep_their_meaning():
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 5}
    fields = encode(**sampling, stop_sequences=["END"], metadata={"user_id": "u"}, service_tier="standard_only")
    assert {name: fields[name] for name in sampling} == sampling
    assert (fields["max_completion_tokens"], fields["stop"], fields["user"]) == (9, ["END"], "u")
    assert fields["service_tier"] == "default"


def test_nothing_is_added_to_a_plain_request():
    assert encode() == {"model": "x", "messages": [USER], "max_completion_tokens": 9}


def test_tools_and_the_choice_among_them():
    choice = {"type": "any", "disable_parallel_tool_use": True}
    fields = encode(tools=[{**TOOL, "strict": True, "cache_control": {"type": "ephemeral"}}], tool_choice=choice)
    function = {"name": "add", "description": "d", "strict": True, "parameters": TOOL["input_schema"]}
    assert fields["tools"] == [{"type": "function", "function": function}]
    assert (fields["tool_choice"], fields["parallel_tool_calls"]) == ("required", False)
    assert encode(tools=[TOOL], tool_choice={"type": "none"})["tool_choice"] == "none"
    named = encode(tools=[TOOL], tool_choice={"type": "tool", "name": "add"})["tool_choice"]
    assert named == {"type": "function", "function": {"name": "add"}}


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({"output_config": {"effort": "xhigh"}}, "xhigh"),
        ({"output_config": {"effort": "low"}, "thinking": {"type": "adaptive"}}, "low"),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10_000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 32_000}}, "high"),
    ],
)
def test_effort_and_thinking_become_one_effort(fields, effort):
    assert encode(**fields).get("reasoning_effort") == effort


def test_a_schema_stays_binding():
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    shape = encode(output_config={"format": {"type": "json_schema", "schema": schema}})["response_format"]
    assert shape == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def test_hints_that_change_no_answer_are_left_out():
    cached = {"cache_control": {"type": "ephemeral"}}
    system = [{"type": "text", "text": "a", **cached}, {"type": "text", "text": "b", **cached}]
    messages = encode({"role": "user", "content": [{"type": "text", "text": "hi", **cached}]}, system=system)[
        "messages"
    ]
    assert messages == [
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        USER,
    ]


def test_a_failed_tool_says_so_in_words():
    use = {"type": "tool_use", "id": "t", "name": "add", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "no such file", "is_error": True}
    messages = encode(USER, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]})["messages"]
    assert messages[1]["content"] is None
    assert [part["text"] for part in messages[2]["content"]] == ["The tool failed with this error:", "no such file"]


def test_thinking_of_a_model_that_signs_nothing_goes_back_as_text_only():
    blocks = [unsigned_thinking("hm"), {"type": "text", "text": "4"}]
    assert encode(USER, {"role": "assistant", "content": blocks}, USER)["messages"][1] == {
        "role": "assistant",
        "content": "4",
        "reasoning_content": "hm",
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"container": "c"}, "container"),
        ({"speed": "fast"}, "speed"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"output_config": {"task_budget": {}}}, "output_config.task_budget"),
        ({"output_config": {"format": {"type": "grammar"}}}, "output_config.format"),
        ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, "tools[0]"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [TOOL], "tool_choice": {"type": "x"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "assistant", "content": "The answer is ("}]}, "messages[1]"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
            "messages[0].content[0].source",
        ),
        ({"system": [{"type": "image"}]}, "system[0]"),
    ],
)
def test_what_a_chat_cannot_say_is_refused_by_name(fields, param):
    with pytest.raises(FieldError) as caught:
        encode(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [USER], "max_tokens": None}, "max_tokens"),
        ({"messages": [USER], "max_tokens": "9"}, "max_tokens"),
        ({"messages": [USER], "max_tokens": -1}, "max_tokens"),
        ({"messages": [USER], "temperature": True}, "temperature"),
        ({"messages": [USER], "top_p": -0.5}, "top_p"),
        ({"messages": [USER], "tools": {}}, "tools"),
        ({"messages": [USER], "system": 5}, "system"),
    ],
)
def test_what_the_gateway_reads_is_checked_by_name(fields, param):
    with pytest.raises(FieldError) as caught:
        MESSAGES.check({"model": "x", "max_tokens": 1, **fields})
    assert caught.value.param == param


def test_a_count_needs_no_bound():
    CountTokens().check({"model": "x", "messages": [USER]})
    with pytest.raises(FieldError):
        CountTokens().check({"model": "x", "messages": []})
