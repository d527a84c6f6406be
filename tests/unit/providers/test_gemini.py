"""Gemini's compatible endpoint, where it differs from OpenAI's."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest

from mlaas.providers.base import Call, FailureKind, Operation, ProviderFailed, Usage
from mlaas.providers.gemini import SKIP_SIGNATURE, Gemini

PROVIDER = Gemini(name="gemini", base_url=Gemini.default_url, api_key="sk-x")
HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def call(*messages, is_asked=True) -> Call:
    fields = {"model": "m", "messages": list(messages), "stream_options": {"include_usage": is_asked}}
    return Call(operation=Operation.CHAT, model="m", is_stream=False, fields=fields, body=orjson.dumps(fields))


def assistant(*signatures, **extra) -> dict:
    calls = []
    for number, signature in enumerate(signatures):
        calls.append({"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}})
        if signature:
            calls[-1]["extra_content"] = {"google": {"thought_signature": signature}}
    return {"role": "assistant", "content": None, "tool_calls": calls, **extra}


def signatures(request) -> list:
    calls = [each for message in orjson.loads(request.body)["messages"] for each in message.get("tool_calls") or ()]
    return [((each.get("extra_content") or {}).get("google") or {}).get("thought_signature") for each in calls]


def chunk(delta, finish=None, usage=None, index=0) -> bytes:
    value = {**HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}
    return b"data: " + orjson.dumps(value | ({"usage": usage} if usage else {})) + b"\n\n"


def tool(name, index=0) -> dict:
    function = {"name": name, "arguments": "{}"}
    return {"tool_calls": [{"index": index, "id": name, "type": "function", "function": function}]}


@pytest.mark.parametrize("model", ["gemini-3.8-flash", "models/gemini-4-argon", "gemini-flash-latest", "gemini-10"])
def test_the_first_call_of_each_turn_is_signed(model):
    own, mixed, foreign = assistant("own", None), assistant("own"), assistant(None, None)
    request = PROVIDER.encode_request(call(own, mixed, foreign), model=model)
    assert signatures(request) == ["own", None, "own", SKIP_SIGNATURE, None]


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "models/gemini-2.0-flash", "gemini-1.5-pro"])
def test_an_older_model_needs_no_signature(model):
    assert signatures(PROVIDER.encode_request(call(assistant(None)), model=model)) == [None]


def test_a_history_of_its_own_passes_untouched():
    asked = call({"role": "user", "content": "x"}, assistant("own", None))
    assert PROVIDER.encode_request(asked, model="m").body == asked.body


def test_signing_keeps_out_what_others_left():
    foreign = assistant(None, thinking_blocks=[{"type": "thinking"}], reasoning_content="hm")
    sent = orjson.loads(PROVIDER.encode_request(call(foreign), model="gemini-3.8-flash").body)
    assert sent["messages"][0].keys() == {"role", "content", "tool_calls"}


def test_thinking_shows_only_in_the_total():
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 112}
    assert PROVIDER.parse_usage(usage) == Usage(input_tokens=7, output_tokens=105, reasoning_tokens=100)
    assert PROVIDER.parse_usage({**usage, "total_tokens": 12}) == Usage(input_tokens=7, output_tokens=5)


def test_parallel_calls_get_an_index_each_and_the_reason_comes_last():
    stream = PROVIDER.decode_stream(call())
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    fed = stream.feed(chunk({"role": "assistant", **tool("a")}, "stop"))
    fed += stream.feed(chunk(tool("b"), "stop")) + stream.feed(chunk({}, "stop", usage) + b"data: [DONE]\n\n")
    values = [orjson.loads(block.removeprefix(b"data: ")) for block in fed.split(b"\n\n") if block]
    choices = [value["choices"][0] for value in values]
    made = [each["index"] for choice in choices for each in choice["delta"].get("tool_calls") or ()]
    assert made == [0, 1]
    assert [choice["finish_reason"] for choice in choices][-1] == "tool_calls"
    assert [choice["finish_reason"] for choice in choices].count(None) == len(choices) - 1
    assert stream.usage == Usage(input_tokens=7, output_tokens=5)
    tail = stream.finish(Decimal("0.25"))
    assert b'"usage":{"cost_usd":0.25,"prompt_tokens":7' in tail
    assert tail.endswith(b"data: [DONE]\n\n")


def test_chunks_that_are_right_pass_untouched():
    stream = PROVIDER.decode_stream(call(is_asked=False))
    text = chunk({"content": "a"}) + chunk({"content": "b"})
    assert stream.feed(text) == text
    signed = chunk({"tool_calls": [{**tool("a")["tool_calls"][0], "extra_content": {"google": {"x": "y"}}}]})
    assert stream.feed(signed) == signed


def test_an_error_in_a_stream_may_be_a_list():
    stream = PROVIDER.decode_stream(call())
    with pytest.raises(ProviderFailed, match="busy") as caught:
        stream.feed(b'data: [{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}]\n\n')
    assert caught.value.failure.kind is FailureKind.OVERLOADED
    with pytest.raises(ProviderFailed, match="busy"):
        PROVIDER.decode_answer(call(), b'[{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}]')


def test_a_whole_answer_that_calls_tools_ends_for_that_reason():
    choice = {"index": 0, "message": assistant("s"), "finish_reason": "stop"}
    body = orjson.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
    answer = orjson.loads(PROVIDER.decode_answer(call(), body).body)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["choices"][0]["message"] == choice["message"]
