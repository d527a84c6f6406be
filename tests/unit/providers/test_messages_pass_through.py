"""Messages to a caller who speaks them: bytes as they came, but for what ends a stream and foreign thinking."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest

from mlaas.providers.anthropic import Anthropic
from mlaas.providers.base import Call, FailureKind, Operation, ProviderFailed, Usage
from mlaas.providers.thinking import mark_thinking, unsigned_thinking
from tests.fakes.messages_sdk import accumulate

PROVIDER = Anthropic(name="claude", base_url="http://host/v1/", api_key="key")
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5-5",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {
        "input_tokens": 7,
        "cache_read_input_tokens": 2,
        "cache_creation_input_tokens": 3,
        "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 1},
        "output_tokens": 1,
    },
}
USED = Usage(
    input_tokens=7,
    cache_read_tokens=2,
    cache_write_tokens=2,
    cache_write_1h_tokens=1,
    output_tokens=9,
    reasoning_tokens=4,
)


def event(value, newline=b"\n"):
    return b"event: %b%bdata: %b%b%b" % (value["type"].encode(), newline, orjson.dumps(value), newline, newline)


def text(piece):
    delta = {"type": "text_delta", "text": piece}
    return {"type": "content_block_delta", "index": 0, "delta": delta}


START = [
    {"type": "message_start", "message": MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
]
CONTENT = [text("message_stop "), text("event: error"), {"type": "content_block_stop", "index": 0}]
END = [
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}, "input_tokens": None},
    },
    {"type": "message_stop"},
]
ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}


def call_of(fields, body=None, operation=Operation.MESSAGES, headers=None, model="claude/x"):
    body = body or orjson.dumps(fields)
    return Call(operation=operation, model=model, is_stream=False, fields=fields, body=body, headers=headers or {})


def decoder(model="claude/x"):
    return PROVIDER.decode_stream(call_of({}, b"{}", model=model))


def wire(*groups):
    return b"".join(event(value) for group in groups for value in group)


@pytest.mark.parametrize("operation", [Operation.MESSAGES, Operation.COUNT_TOKENS])
def test_only_model_and_key_change_and_betas_go_along(operation):
    body = b'{ "model" : "x", "max_tokens": 9e0, "future": [1.50],"messages":[{"role":"user","content":"\\u00e9"}]}'
    headers = {"anthropic-beta": "a,b", "anthropic-version": "2099-01-01", "x-other": "no"}
    request = PROVIDER.encode_request(call_of(orjson.loads(body), body, operation, headers), model="claude-opus-5-5")
    assert request.body == body.replace(b'"x"', b'"claude-opus-5-5"')
    assert request.path == f"/{operation.value}"
    assert request.headers["x-api-key"] == "key"
    assert (request.headers["anthropic-beta"], request.headers["anthropic-version"]) == ("a,b", "2099-01-01")
    assert "x-other" not in request.headers
    plain = PROVIDER.encode_request(call_of(orjson.loads(body), body, operation), model="m")
    assert plain.headers["anthropic-version"] == "2023-06-01"


def test_thinking_that_the_gateway_marked_goes_back_to_its_model_only():
    native = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    redacted = {"type": "redacted_thinking", "data": "dat"}
    said = {"type": "text", "text": "4"}
    marked = [
        unsigned_thinking("other"),
        mark_thinking(native, model="claude-opus-5-5", place=0),
        mark_thinking(redacted, model="claude-opus-5", place=1),
        said,
        native,
    ]
    user = {"role": "user", "content": "hi"}
    call = call_of({"model": "x", "messages": [user, {"role": "assistant", "content": marked}, user], "max_tokens": 9})

    def sent_to(model):
        return orjson.loads(PROVIDER.encode_request(call, model=model).body)["messages"][1]["content"]

    assert sent_to("claude-opus-5-5") == [native, said, native]
    assert sent_to("claude-opus-5") == [redacted, said, native]
    assert sent_to("claude-sonnet-5") == [said, native]


def test_a_turn_that_was_all_thinking_of_another_model_is_left_out():
    user = {"role": "user", "content": "hi"}
    fields = {"model": "x", "messages": [user, {"role": "assistant", "content": [unsigned_thinking("hm")]}, user]}
    assert orjson.loads(PROVIDER.encode_request(call_of(fields), model="m").body)["messages"] == [user, user]


THOUGHT = [
    {"type": "thinking", "thinking": "hm", "signature": "sig"},
    {"type": "redacted_thinking", "data": "dat"},
    {"type": "text", "text": "4"},
]
THINKING = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": THOUGHT[1]},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "4"}},
    {"type": "content_block_stop", "index": 2},
]


@pytest.mark.parametrize("size", [1, 10_000])
def test_thinking_gets_its_origin_when_an_alias_answers(size):
    marked = [
        *(mark_thinking(block, model="claude-opus-5-5", place=place) for place, block in enumerate(THOUGHT[:2])),
        THOUGHT[2],
    ]
    body = orjson.dumps({**MESSAGE, "content": THOUGHT})
    assert orjson.loads(PROVIDER.decode_answer(call_of({}, b"{}", model="alias"), body).body)["content"] == marked
    assert PROVIDER.decode_answer(call_of({}, b"{}"), body).body is body
    data = wire(START[:1], THINKING, END)
    for model, expected in (("alias", marked), ("claude/x", THOUGHT)):
        stream = decoder(model)
        events = b"".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size)) + stream.finish(None)
        assert [block.to_dict() for block in accumulate(events).content] == expected
        assert (events == data) is (model != "alias")
        assert stream.num_deltas == 3


def test_another_providers_signature_of_a_tool_call_is_taken_off():
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {"extra_content": 1}}
    signed = {**use, "extra_content": {"google": {"thought_signature": "s"}}}
    call = call_of({"model": "x", "max_tokens": 9, "messages": [{"role": "assistant", "content": [signed]}]})
    sent = orjson.loads(PROVIDER.encode_request(call, model="m").body)
    assert sent == {**call.fields, "model": "m", "messages": [{"role": "assistant", "content": [use]}]}


def test_citations_of_another_providers_search_are_taken_off():
    foreign, own = (
        {"type": "web_search_result_location", "url": "u", "title": None, "cited_text": "x", "encrypted_index": index}
        for index in ("", "Ew==")
    )
    said = {"type": "text", "text": "x", "citations": [foreign, own]}
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [said]}]
    call = call_of({"model": "x", "max_tokens": 5, "messages": messages})
    sent = orjson.loads(PROVIDER.encode_request(call, model="m").body)
    assert sent["messages"][1]["content"][0]["citations"] == [own]


def test_an_answer_passes_with_its_usage():
    body = orjson.dumps(MESSAGE).replace(b'"output_tokens":1', b'"output_tokens" : 9')
    answer = PROVIDER.decode_answer(call_of({}, b"{}"), body)
    assert answer.body is body
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.output_tokens) == (12, 9)


def test_a_count_passes_and_uses_nothing():
    call = call_of({}, b"{}", Operation.COUNT_TOKENS)
    assert PROVIDER.decode_answer(call, b'{"input_tokens": 5}').usage == Usage()
    with pytest.raises(ProviderFailed):
        PROVIDER.decode_answer(call, b'{"error": {}}')


def test_usage_that_the_upstream_does_not_say_is_unknown():
    nothing = {"input_tokens": 0, "output_tokens": 0}
    for usage in (nothing, None):
        assert PROVIDER.decode_answer(call_of({}, b"{}"), orjson.dumps({**MESSAGE, "usage": usage})).usage is None
    stream = decoder()
    stream.feed(wire(START, CONTENT, [{"type": "message_delta", "delta": {}}, {"type": "message_stop"}]))
    assert stream.finish(None)
    assert stream.usage is None


@pytest.mark.parametrize("operation", [Operation.MESSAGES, Operation.CHAT])
def test_an_error_with_a_status_of_200_is_a_failure(operation):
    with pytest.raises(ProviderFailed, match="busy") as caught:
        PROVIDER.decode_answer(call_of({}, b"{}", operation), orjson.dumps(ERROR))
    assert caught.value.failure.kind is FailureKind.OVERLOADED


@pytest.mark.parametrize("wrong", [{"input_tokens": -1}, {"output_tokens": "9"}, {"cache_read_input_tokens": 1.5}])
def test_usage_that_cannot_be_is_unknown(wrong):
    body = orjson.dumps({**MESSAGE, "usage": {**MESSAGE["usage"], **wrong}})
    assert PROVIDER.decode_answer(call_of({}, b"{}"), body).usage is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"content": null}'])
def test_an_answer_that_is_no_message_is_a_failure(body):
    with pytest.raises(ProviderFailed):
        PROVIDER.decode_answer(call_of({}, b"{}"), body)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_stream_passes_byte_for_byte_however_it_is_cut(size):
    data = wire(START, CONTENT, END)
    stream = decoder()
    passed = b"".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert passed == wire(START, CONTENT)
    assert stream.num_deltas == 2
    assert passed + stream.finish(None) == data
    assert stream.usage == USED
    assert accumulate(data).usage.output_tokens == 9


def test_a_stream_cut_at_any_byte_is_noticed_unless_it_was_complete():
    data = wire(START, CONTENT, END)
    for end in range(len(data)):
        stream = decoder()
        passed = stream.feed(data[:end])
        assert data.startswith(passed)
        assert passed.endswith(b"\n\n") or not passed
        with pytest.raises(ProviderFailed) as caught:
            stream.finish(None)
        assert caught.value.failure.kind is FailureKind.CLOSED


def test_the_cost_goes_into_the_last_usage():
    stream = decoder()
    events = stream.feed(wire(START, CONTENT, END)) + stream.finish(Decimal("0.000012300"))
    assert b'"usage":{"cost_usd":0.000012300,"output_tokens":9' in events
    assert accumulate(events).stop_reason == "end_turn"


def test_nothing_goes_out_before_the_first_content():
    stream = decoder()
    assert stream.feed(wire(START)) == b""
    assert stream.feed(event(text("a"))) == wire(START, [text("a")])
    assert stream.feed(event(text("b"))) == event(text("b"))


def test_an_empty_message_goes_out_at_the_end():
    stream = decoder()
    assert stream.feed(wire(START[:1], END)) == b""
    assert stream.finish(None) == wire(START[:1], END)


def test_an_error_before_the_first_content_is_a_failure_of_the_attempt():
    with pytest.raises(ProviderFailed, match="busy") as caught:
        decoder().feed(wire(START, [ERROR]))
    assert (caught.value.failure.kind, caught.value.failure.status) == (FailureKind.OVERLOADED, 503)


def test_an_error_after_content_lets_the_content_out_first():
    stream = decoder()
    assert stream.feed(wire(START, CONTENT[:1], [ERROR])) == wire(START, CONTENT[:1])
    for again in (lambda: stream.feed(event(CONTENT[1])), lambda: stream.finish(None)):
        with pytest.raises(ProviderFailed, match="busy"):
            again()


def test_lines_may_end_with_crlf():
    data = b"".join(event(value, b"\r\n") for value in (*START, *CONTENT, *END))
    stream = decoder()
    assert stream.feed(data) + stream.finish(None) == data
    assert stream.usage == USED


@pytest.mark.parametrize("junk", [b"event: message_delta\ndata: {\n\n", b"event: message_start\ndata: []\n\n"])
def test_an_event_that_cannot_be_read_is_a_failure(junk):
    with pytest.raises(ProviderFailed) as caught:
        decoder().feed(junk)
    assert caught.value.failure.code == "upstream_unreadable"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (429, {"type": "rate_limit_error", "message": "m"}, FailureKind.OVERLOADED),
        (
            429,
            {"type": "rate_limit_error", "message": "m", "details": {"error_code": "enforced_spend_limit_reached"}},
            FailureKind.QUOTA,
        ),
        (402, {"type": "billing_error", "message": "m"}, FailureKind.QUOTA),
        (529, {"type": "overloaded_error", "message": "m"}, FailureKind.OVERLOADED),
        (400, {"type": "invalid_request_error", "message": "m"}, FailureKind.REJECTED),
    ],
)
def test_an_error_answer_says_whether_to_try_again(status, error, kind):
    failure = PROVIDER.decode_error(status, {"retry-after-ms": "1500"}, orjson.dumps({"type": "error", "error": error}))
    assert (failure.kind, failure.retry_after_s) == (kind, 1.5)
