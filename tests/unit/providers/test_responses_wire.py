"""Providers that speak the Responses API: bytes pass, the end is held back, failures are seen."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response

from mlaas.providers.base import Call, FailureKind, FieldError, Operation, ProviderFailed, Usage
from mlaas.providers.openai import OpenAI
from mlaas.providers.sealed_thinking import open_thinking, seal_thinking
from mlaas.providers.sse import split_events
from mlaas.providers.xai import XAI

OPENAI = OpenAI(name="openai", base_url="http://x/v1/", api_key="k")
GROK = XAI(name="xai", base_url="http://x/v1", api_key="k")
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 17,
}
# A schema in the echo of the request has a member `usage` of its own, which must stay as it is.
TOOL = {"type": "function", "name": "f", "strict": True, "parameters": {"properties": {"usage": {"type": "string"}}}}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "gpt-6-sol",
    "tools": [TOOL],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "error": None,
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hé", "annotations": []}],
        }
    ],
    "usage": USAGE,
}


def call(fields=None, *, operation=Operation.RESPONSES, stream=False, model="gpt"):
    fields = {"model": model, "input": "hi"} | (fields or {})
    return Call(operation=operation, model=model, is_stream=stream, fields=fields, body=orjson.dumps(fields))


def event(kind, **fields):
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


OPENING = event("response.created", response={**RESPONSE, "status": "in_progress", "usage": None}, sequence_number=0)
DELTA = event("response.output_text.delta", delta="hé", item_id="msg_1", sequence_number=1)
LAST = event("response.completed", response=RESPONSE, sequence_number=2)


def test_the_request_passes_but_for_the_model():
    request = OPENAI.encode_request(call({"include": ["x"]}, stream=True), model="gpt-6-sol")
    assert request.path == "/responses"
    assert request.body == b'{"model":"gpt-6-sol","input":"hi","include":["x"]}'


def test_reasoning_sealed_for_another_provider_is_left_out():
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": seal_thinking([{"type": "thinking"}])}
    theirs = {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
    message = {"role": "user", "content": "hi"}
    request = OPENAI.encode_request(call({"input": [sealed, theirs, message]}), model="gpt")
    assert orjson.loads(request.body)["input"] == [theirs, message]


def test_an_answer_passes_and_its_usage_is_read():
    body = orjson.dumps(RESPONSE, option=orjson.OPT_INDENT_2)
    answer = OPENAI.decode_answer(call(), body)
    assert answer.body is body
    assert answer.usage == Usage(
        input_tokens=5, cache_read_tokens=4, cache_write_tokens=1, output_tokens=7, reasoning_tokens=3
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "server_error", "message": "m"}, FailureKind.FAILED),
        ({"code": "rate_limit_exceeded", "message": "m"}, FailureKind.OVERLOADED),
        ({"code": "insufficient_quota", "message": "m"}, FailureKind.QUOTA),
        ({"code": "invalid_image_url", "message": "m"}, FailureKind.REJECTED),
        ({"type": "invalid_request_error", "message": "m"}, FailureKind.REJECTED),
    ],
)
def test_a_failed_answer_and_every_shape_of_error_event_mean_the_same(error, kind):
    with pytest.raises(ProviderFailed) as failed:
        OPENAI.decode_answer(call(), orjson.dumps({**RESPONSE, "status": "failed", "error": error}))
    assert failed.value.failure.kind is kind
    shapes = [
        event("response.failed", response={**RESPONSE, "status": "failed", "error": error}),
        event("response.failed", error=error),
        event("error", error=error),
        event("error", **{key: value for key, value in error.items() if key != "type"}) if "code" in error else None,
    ]
    for shape in filter(None, shapes):
        with pytest.raises(ProviderFailed) as failed:
            OPENAI.decode_stream(call(stream=True)).feed(OPENING + shape)
        assert failed.value.failure.kind is kind
        assert failed.value.failure.message.endswith("m")


@pytest.mark.parametrize("body", [b"<html>", b"[]"])
def test_an_answer_that_is_no_response_is_unreadable(body):
    with pytest.raises(ProviderFailed):
        OPENAI.decode_answer(call(), body)


def test_a_stream_cut_at_every_byte_passes_whole_events_and_keeps_the_end():
    stream = OPENING + b": ping\r\n\r\n" + DELTA * 2 + LAST + b"data: [DONE]\n\n"
    for position in range(len(stream) + 1):
        decoder = OPENAI.decode_stream(call(stream=True))
        passed = decoder.feed(stream[:position]) + decoder.feed(stream[position:])
        assert passed == OPENING + b": ping\r\n\r\n" + DELTA * 2
        assert decoder.num_deltas == 2
        assert decoder.usage is not None
        assert decoder.usage.total_tokens == 17
        assert decoder.finish(None) == LAST


def test_the_cost_goes_into_the_usage_of_the_last_event_and_nowhere_else():
    decoder = OPENAI.decode_stream(call(stream=True))
    decoder.feed(OPENING + DELTA + LAST)
    (payload,) = split_events(decoder.finish(Decimal("0.000012")))
    value = orjson.loads(payload)
    assert value["response"].pop("usage") == {**USAGE, "cost_usd": 0.000012}
    assert value["response"]["tools"] == [TOOL]
    Response.model_validate({**value["response"], "usage": USAGE}, strict=True)


def test_nothing_goes_out_before_the_first_output():
    decoder = OPENAI.decode_stream(call(stream=True))
    assert decoder.feed(OPENING) == b""
    assert decoder.feed(DELTA) == OPENING + DELTA


def test_what_came_before_an_error_still_goes_out():
    decoder = OPENAI.decode_stream(call(stream=True))
    failure = event("error", code="server_error", message="m")
    assert decoder.feed(OPENING + DELTA + failure) == OPENING + DELTA
    with pytest.raises(ProviderFailed, match=r".*") as failed:
        decoder.finish(None)
    assert failed.value.failure.code == "server_error"


@pytest.mark.parametrize("tail", [b"", LAST[:-30], b"data: [DONE]\n\n"])
def test_a_stream_without_its_last_event_is_cut_short(tail):
    decoder = OPENAI.decode_stream(call(stream=True))
    decoder.feed(OPENING + DELTA + tail)
    with pytest.raises(ProviderFailed) as failed:
        decoder.finish(None)
    assert failed.value.failure.kind is FailureKind.CLOSED


def test_an_event_that_is_not_json_is_unreadable():
    with pytest.raises(ProviderFailed):
        OPENAI.decode_stream(call(stream=True)).feed(b"data: {\n\n")


def test_other_operations_keep_their_own_wire():
    chat = {"messages": [{"role": "user", "content": "x"}]}
    assert OPENAI.encode_request(call(chat, operation=Operation.CHAT), model="m").path == "/chat/completions"
    body = b'{"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    assert OPENAI.decode_answer(call(operation=Operation.CHAT), body).usage == Usage(input_tokens=1, output_tokens=2)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers(0, 9))))
def test_sealed_thinking_opens_to_what_was_sealed(blocks):
    assert open_thinking(seal_thinking(blocks)) == blocks


@pytest.mark.parametrize("text", ["gAAA", "mlaas-thinking:%%", "mlaas-thinking:e30=", "mlaas-thinking:WzFd"])
def test_what_is_not_ours_does_not_open(text):
    assert open_thinking(text) is None


TICKS = {"cost_in_usd_ticks": 123_456_789}


@pytest.mark.parametrize(
    ("total", "output"), [(19, 9), (15, 5)], ids=["reasoning beside completion", "reasoning inside completion"]
)
def test_grok_counts_reasoning_once(total, output):
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": 4},
        **TICKS,
    }
    assert GROK.parse_usage(usage) == Usage(
        input_tokens=10, output_tokens=output, reasoning_tokens=4, reported_cost_usd=Decimal("0.0123456789")
    )


def test_grok_states_its_bill_on_responses_too():
    usage = GROK.parse_response_usage(USAGE | TICKS)
    assert usage is not None
    assert (usage.output_tokens, usage.reported_cost_usd) == (7, Decimal("0.0123456789"))


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.RESPONSES])
@pytest.mark.parametrize(
    ("model", "effort", "is_taken"),
    [
        ("grok-4.3", "none", True),
        ("grok-4.5", "none", False),
        ("grok-4.5", "xhigh", False),
        ("grok-4.6", "xhigh", True),
        ("grok-4.7-latest", "max", False),
        ("grok-9", "max", True),
    ],
)
def test_grok_reasoning_efforts(operation, model, effort, is_taken):
    fields = {"reasoning": {"effort": effort}} if operation is Operation.RESPONSES else {"reasoning_effort": effort}
    asked = call({**fields, "messages": []}, operation=operation)
    if is_taken:
        GROK.encode_request(asked, model=model)
    else:
        with pytest.raises(FieldError, match="effort"):
            GROK.encode_request(asked, model=model)


@pytest.mark.parametrize("field", ["presence_penalty", "frequency_penalty", "stop"])
@pytest.mark.parametrize(
    ("model", "is_taken"), [("grok-4.7", False), ("grok-3", True), ("grok-4-1-fast-non-reasoning", True)]
)
def test_grok_that_reasons_refuses_penalties_and_stops(field, model, is_taken):
    asked = call({field: "x" if field == "stop" else 0.5, "messages": []}, operation=Operation.CHAT)
    if is_taken:
        GROK.encode_request(asked, model=model)
    else:
        with pytest.raises(FieldError, match=field) as refused:
            GROK.encode_request(asked, model=model)
        assert refused.value.param == field


def test_groks_error_shape():
    failure = GROK.decode_error(400, {}, b'{"code":"Client specified an invalid argument","error":"bad model"}')
    assert (failure.kind, failure.message) == (FailureKind.REJECTED, "xai: bad model")
