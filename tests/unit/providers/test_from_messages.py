"""Messages answers as chat completions."""

from __future__ import annotations

import orjson
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from mlaas.providers.base import Call, FailureKind, Operation, ProviderFailed, Usage
from mlaas.providers.from_messages import MessagesStream, decode_message, read_usage
from mlaas.providers.sse import split_events
from mlaas.providers.thinking import read_thinking


def answer(content, stop_reason="end_turn"):
    usage = {"input_tokens": 3, "output_tokens": 2}
    body = {"id": "msg", "model": "m", "content": content, "stop_reason": stop_reason, "usage": usage}
    return ChatCompletion.model_validate_json(decode_message("claude", orjson.dumps(body)).body)


def stream(*events):
    call = Call(operation=Operation.CHAT, model="m", is_stream=True, fields={}, body=b"")
    decoder = MessagesStream("claude", call)
    start = {"type": "message_start", "message": {"id": "msg", "model": "m", "usage": {"input_tokens": 3}}}
    data = b"".join(decoder.feed(b"data: " + orjson.dumps(each) + b"\n\n") for each in (start, *events))
    data += decoder.finish(None)
    return [orjson.loads(each)["choices"][0] for each in split_events(data) if each != b"[DONE]"]


def start_tool(index, name):
    block = {"type": "tool_use", "id": f"id-{name}", "name": name, "input": {}}
    return {"type": "content_block_start", "index": index, "content_block": block}


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_stop_reasons(stop_reason, finish_reason):
    assert answer([{"type": "text", "text": "x"}], stop_reason).choices[0].finish_reason == finish_reason


def test_tool_calls_and_thinking_keep_their_parts():
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
        {"type": "tool_use", "id": "t2", "name": "now", "input": {}},
    ]
    message = answer(blocks, "tool_use").choices[0].message
    assert message.content is None
    assert [call.function.name for call in message.tool_calls] == ["add", "now"]
    assert [orjson.loads(call.function.arguments) for call in message.tool_calls] == [{"a": 1}, {}]
    assert message.model_extra["reasoning_content"] == "hm"
    (block,) = message.model_extra["thinking_blocks"]
    assert read_thinking(block, model="m") == (0, blocks[0])
    assert read_thinking(block, model="other") is None


def test_each_input_token_is_counted_once():
    usage = read_usage(
        {
            "input_tokens": 10,
            "cache_read_input_tokens": 5,
            "cache_creation_input_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 3},
            "output_tokens": 8,
            "output_tokens_details": {"thinking_tokens": 6},
        }
    )
    assert usage == Usage(
        input_tokens=10,
        cache_read_tokens=5,
        cache_write_tokens=4,
        cache_write_1h_tokens=3,
        output_tokens=8,
        reasoning_tokens=6,
    )
    assert usage.prompt_tokens == 22


def test_nulls_in_a_usage_are_zeros():
    assert read_usage({"input_tokens": 3, "cache_creation": None, "cache_read_input_tokens": None}) == Usage(
        input_tokens=3
    )


def test_streamed_tool_calls_have_an_index_each_and_arguments_that_are_json():
    choices = stream(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "a", "name": "f", "input": {}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"x":'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
        {"type": "content_block_stop", "index": 1},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "b", "name": "g", "input": {}},
        },
        {"type": "content_block_stop", "index": 2},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    arguments: dict[int, str] = {}
    for choice in choices:
        for call in choice["delta"].get("tool_calls", ()):
            arguments[call["index"]] = arguments.get(call["index"], "") + call["function"]["arguments"]
    assert {index: orjson.loads(text) for index, text in arguments.items()} == {0: {"x": 1}, 1: {}}
    assert choices[-1]["finish_reason"] == "tool_calls"


def test_streamed_thinking_is_text_first_and_a_signed_block_at_its_end():
    choices = stream(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "d"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    deltas = [choice["delta"] for choice in choices]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "hm"
    blocks = [read_thinking(block, model="m") for delta in deltas for block in delta.get("thinking_blocks", ())]
    assert blocks == [
        (0, {"type": "thinking", "thinking": "hm", "signature": "s"}),
        (1, {"type": "redacted_thinking", "data": "d"}),
    ]


def test_a_stream_cut_at_any_byte_is_noticed_and_ends_with_a_whole_chunk():
    values = [
        {"type": "message_start", "message": {"id": "msg", "model": "m", "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "\u00e9\u4f60"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    data = b"".join(b"data: " + orjson.dumps(value) + b"\n\n" for value in values)
    call = Call(operation=Operation.CHAT, model="m", is_stream=True, fields={}, body=b"")
    for end in range(len(data)):
        decoder = MessagesStream("claude", call)
        for payload in split_events(decoder.feed(data[:end])):
            ChatCompletionChunk.model_validate_json(payload, strict=True)
        with pytest.raises(ProviderFailed) as caught:
            decoder.finish(None)
        assert caught.value.failure.kind is FailureKind.CLOSED
        assert decoder.usage is None


def test_an_error_after_content_lets_the_content_out_first():
    call = Call(operation=Operation.CHAT, model="m", is_stream=True, fields={}, body=b"")
    decoder = MessagesStream("claude", call)
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}}
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    assert b'"ok"' in decoder.feed(b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in (delta, error)))
    for again in (lambda: decoder.feed(b"data: {}\n\n"), lambda: decoder.finish(None)):
        with pytest.raises(ProviderFailed, match="busy"):
            again()


def test_nothing_goes_out_before_the_first_content():
    call = Call(operation=Operation.CHAT, model="m", is_stream=True, fields={}, body=b"")
    decoder = MessagesStream("claude", call)
    start = {"type": "message_start", "message": {"id": "msg", "model": "m", "usage": {"input_tokens": 3}}}
    assert decoder.feed(b"data: " + orjson.dumps(start) + b"\n\n") == b""
    overloaded = b'data: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'
    with pytest.raises(ProviderFailed) as caught:
        decoder.feed(overloaded)
    assert caught.value.failure.kind is FailureKind.OVERLOADED
