"""Whole answers and streams are two forms of the same thing: each one turns into the other and back."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from mlaas.providers.base import Call, Operation, Usage
from mlaas.providers.sse import DONE, encode_event, split_events
from mlaas.router.caches.replay.forms import stream_from_whole, whole_from_stream

TEXT = st.text(max_size=20)
JSON_OBJECTS = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers(-9, 9) | TEXT, max_size=3)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def call(operation: Operation, **fields: object) -> Call:
    return Call(operation=operation, model="m", is_stream=True, fields=fields, body=b"")


@st.composite
def chat_completions(draw: st.DrawFn) -> dict:
    choices = []
    for index in range(draw(st.integers(1, 3))):
        message: dict = {"role": "assistant", "content": draw(TEXT.filter(bool)), "refusal": None}
        if draw(st.booleans()):
            message["reasoning_content"] = draw(TEXT.filter(bool))
        reason = "stop"
        if draw(st.booleans()):
            arguments = orjson.dumps(draw(JSON_OBJECTS)).decode()
            function = {"name": "f", "arguments": arguments}
            message["tool_calls"] = [{"id": f"c{n}", "type": "function", "function": function} for n in range(2)]
            reason = "tool_calls"
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": choices, "usage": USAGE}


@st.composite
def messages(draw: st.DrawFn) -> dict:
    blocks: list[dict] = []
    for kind in draw(st.lists(st.sampled_from(["text", "thinking", "tool_use", "redacted_thinking"]), max_size=4)):
        match kind:
            case "text":
                blocks.append({"type": "text", "text": draw(TEXT)})
            case "thinking":
                blocks.append({"type": "thinking", "thinking": draw(TEXT), "signature": draw(TEXT)})
            case "tool_use":
                blocks.append({"type": "tool_use", "id": "t", "name": "f", "input": draw(JSON_OBJECTS)})
            case "redacted_thinking":
                blocks.append({"type": "redacted_thinking", "data": "x"})
    usage = {"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 5}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
    return {**head, "content": blocks, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}


@given(chat_completions())
def test_a_chat_completion_survives_its_stream(whole: dict) -> None:
    request = call(Operation.CHAT, stream_options={"include_usage": True})
    events = stream_from_whole(request, orjson.dumps(whole), cost_usd=Decimal(0))
    back = orjson.loads(whole_from_stream(Operation.CHAT, events, usage=None))
    for choice in whole["choices"]:  # As OpenAI has it: beside tool calls, nothing said is null.
        if choice["message"].get("tool_calls") and not choice["message"]["content"]:
            choice["message"]["content"] = None
    assert back == whole
    ChatCompletion.model_validate(back)


@given(chat_completions())
def test_openai_s_sdk_reads_the_same_out_of_the_stream(whole: dict) -> None:
    request = call(Operation.CHAT, stream_options={"include_usage": True})
    events = stream_from_whole(request, orjson.dumps(whole), cost_usd=None)
    state = ChatCompletionStreamState()
    for payload in split_events(events)[:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(payload))
    read = state.get_final_completion()
    for choice, expected in zip(read.choices, whole["choices"], strict=True):
        assert choice.message.content == expected["message"]["content"]
        assert choice.finish_reason == expected["finish_reason"]
        calls = [each.function.arguments for each in choice.message.tool_calls or ()]
        assert calls == [each["function"]["arguments"] for each in expected["message"].get("tool_calls", ())]
    assert read.usage is not None
    assert read.usage.total_tokens == 7


@given(messages())
def test_a_message_survives_its_stream_and_anthropic_s_sdk_reads_it(whole: dict) -> None:
    events = stream_from_whole(call(Operation.MESSAGES), orjson.dumps(whole), cost_usd=Decimal(0))
    assert orjson.loads(whole_from_stream(Operation.MESSAGES, events, usage=None)) == whole
    snapshot, buffers = None, {}
    for payload in split_events(events):
        event = TypeAdapter(RawMessageStreamEvent).validate_json(payload)
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    read = Message.model_validate(snapshot.model_dump())
    assert [block.type for block in read.content] == [block["type"] for block in whole["content"]]
    assert [b.input for b in read.content if b.type == "tool_use"] == [
        b["input"] for b in whole["content"] if b["type"] == "tool_use"
    ]


def test_a_legacy_completion_survives_its_stream() -> None:
    choices = [{"index": 0, "text": "a b", "logprobs": None, "finish_reason": "length"}]
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    whole = {**head, "choices": choices, "usage": USAGE}
    request = call(Operation.COMPLETION, stream_options={"include_usage": True})
    events = stream_from_whole(request, orjson.dumps(whole), cost_usd=None)
    back = orjson.loads(whole_from_stream(Operation.COMPLETION, events, usage=None))
    assert back == whole
    Completion.model_validate(back)


def chunk(**choice: object) -> bytes:
    return encode_event(orjson.dumps({"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, **choice}]}))


def test_pieces_of_a_real_stream_are_joined() -> None:
    events = (
        chunk(delta={"role": "assistant", "content": ""}, logprobs={"content": [{"token": "a"}]})
        + chunk(delta={"content": "a"}, logprobs={"content": [{"token": "b"}]})
        + chunk(delta={"tool_calls": [{"index": 1, "id": "y", "function": {"name": "g", "arguments": ""}}]})
        + chunk(delta={"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": '{"q"'}}]})
        + chunk(delta={"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})
        + chunk(delta={}, finish_reason="tool_calls")
        + chunk(delta={}, finish_reason="tool_calls")
        + DONE
    )
    whole = orjson.loads(whole_from_stream(Operation.CHAT, events, usage=Usage(input_tokens=2, output_tokens=5)))
    [choice] = whole["choices"]
    assert choice["message"]["content"] == "a"
    assert [each["function"]["arguments"] for each in choice["message"]["tool_calls"]] == ['{"q":1}', ""]
    assert [each["id"] for each in choice["message"]["tool_calls"]] == ["x", "y"]
    assert choice["finish_reason"] == "tool_calls"
    assert [each["token"] for each in choice["logprobs"]["content"]] == ["a", "b"]
    assert whole["usage"]["total_tokens"] == 7


@pytest.mark.parametrize(
    "events",
    [
        b"",
        chunk(delta={"content": "a"}, finish_reason="stop"),
        chunk(delta={"content": "a"}) + DONE,
        chunk(delta={"content": "a"}) + encode_event(b'{"error": {"message": "x"}}'),
        chunk(delta={"content": "a"}, finish_reason="stop") + encode_event(b'{"error": {}}') + DONE,
        encode_event(b"[1]") + DONE,
        encode_event(b"{"),
    ],
)
def test_a_stream_that_did_not_end_well_has_no_whole(events: bytes) -> None:
    assert whole_from_stream(Operation.CHAT, events, usage=None) is None


def test_a_message_that_broke_off_has_no_whole() -> None:
    body = orjson.dumps({"id": "m", "content": [{"type": "text", "text": "hi"}], "usage": {"output_tokens": 1}})
    events = stream_from_whole(call(Operation.MESSAGES), body, cost_usd=None)
    broken = events.removesuffix(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert broken != events
    assert whole_from_stream(Operation.MESSAGES, broken, usage=None) is None
    failed = broken + b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'
    assert whole_from_stream(Operation.MESSAGES, failed, usage=None) is None


def test_usage_and_cost_go_only_to_who_asked_for_them() -> None:
    body = orjson.dumps({"id": "c", "created": 1, "model": "m", "choices": [], "usage": USAGE})
    assert b"usage" not in stream_from_whole(call(Operation.CHAT), body, cost_usd=Decimal(0))
    asked = stream_from_whole(call(Operation.CHAT, stream_options={"include_usage": True}), body, cost_usd=Decimal(0))
    assert orjson.loads(split_events(asked)[-2])["usage"] == {**USAGE, "cost_usd": 0.0}
