"""Passing a request through, and its stream back."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.base import Call, FailureKind, Operation, ProviderFailed, Usage
from mlaas.providers.openai_compatible import OpenAICompatible

PROVIDER = OpenAICompatible(name="house", base_url="http://127.0.0.1/v1/", api_key="sk-x")
HEAD = b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
USAGE = b'"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}'


def call(body: bytes, operation: Operation = Operation.CHAT) -> Call:
    fields = orjson.loads(body)
    return Call(
        operation=operation, model=fields["model"], is_stream=bool(fields.get("stream")), fields=fields, body=body
    )


def event(delta: bytes, finish: bytes = b"null", end: bytes = b"}") -> bytes:
    choice = b'{"index":0,"delta":' + delta + b',"finish_reason":' + finish + b"}"
    return b"data: " + HEAD + b'"choices":[' + choice + b"]" + end + b"\n\n"


ROLE = event(b'{"role":"assistant","content":""}')
WORD = event(b'{"content":" word"}')
STOP = event(b"{}", b'"stop"')
FINAL = b"data: " + HEAD + b'"choices":[],' + USAGE + b"\n\n"
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"busy","code":503}}\n\n'


def decoder(*, is_asked: bool = True):
    options = b',"stream_options":{"include_usage":true}' if is_asked else b""
    return PROVIDER.decode_stream(call(b'{"model":"m","messages":[],"stream":true' + options + b"}"))


# --- requests --------------------------------------------------------------------------------------------------------


def test_the_callers_bytes_go_out_but_for_the_model():
    body = b'{ "messages" : [{"role":"user","content":"\\u00e9"}],\n "temperature": 1e0, "model" :"fast", "x":[1.50] }'
    request = PROVIDER.encode_request(call(body), model="m")
    assert request.body == body.replace(b'"fast"', b'"m"')
    assert request.path == "/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-x"
    assert PROVIDER.base_url == "http://127.0.0.1/v1"


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (b"", b'"stream_options":{"include_usage":true},'),
        (b',"stream_options":null', None),
        (b',"stream_options":{"include_usage":false,"x":1}', None),
        (b',"stream_options":{"include_usage":true}', b""),
    ],
)
def test_a_stream_is_always_asked_for_its_usage(options, sent):
    body = b'{"model":"m","prompt":"x","stream":true' + options + b"}"
    request = PROVIDER.encode_request(call(body, Operation.COMPLETION), model="m")
    value = orjson.loads(request.body)
    assert value["stream_options"]["include_usage"] is True
    assert value["stream_options"].get("x") == (1 if b'"x"' in options else None)
    if sent is not None:
        assert request.body == b"{" + sent + body[1:]


def test_what_other_providers_left_in_a_history_is_not_sent():
    body = (
        b'{"model":"m","n":123456789012345678901234567890,"messages":[{"role":"assistant","content":"a","thinking_blocks":'
        b'[{"type":"thinking"}],"tool_calls":[{"id":"1","extra_content":{"google":{"thought_signature":"s"}}}]}]}'
    )
    sent = PROVIDER.encode_request(call(body), model="m").body
    assert orjson.loads(sent)["messages"] == [{"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}]
    assert b"123456789012345678901234567890" in sent


# --- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_passed_on_as_it_came_with_its_usage():
    body = b'{ "choices": [], ' + USAGE
    answer = PROVIDER.decode_answer(call(b'{"model":"m"}'), body)
    assert answer.body is body
    assert answer.usage == Usage(input_tokens=7, output_tokens=5)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": "7"}, None),
        ({"prompt_tokens": -1, "completion_tokens": 1}, None),
        ({"prompt_tokens": True}, None),
        ({"prompt_tokens": 4, "total_tokens": 4}, Usage(input_tokens=4)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(input_tokens=3, cache_read_tokens=4, cache_write_tokens=3, output_tokens=5, reasoning_tokens=2),
        ),
        ({"prompt_tokens": 2, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(cache_read_tokens=2)),
        ({"prompt_tokens": 2, "prompt_tokens_details": None}, Usage(input_tokens=2)),
    ],
)
def test_usage_counts_each_token_once(usage, expected):
    assert PROVIDER.parse_usage(usage) == expected


# --- streams ---------------------------------------------------------------------------------------------------------


def test_the_end_is_held_back_until_the_cost_is_known():
    stream = decoder()
    assert stream.feed(ROLE) == b""
    assert stream.feed(WORD) == ROLE + WORD
    assert stream.feed(WORD + STOP) == WORD + STOP
    assert stream.feed(FINAL) == b""
    assert stream.feed(DONE) == b""
    assert stream.usage == Usage(input_tokens=7, output_tokens=5)
    assert stream.finish(Decimal("0.00000012")) == FINAL.replace(b'{"prompt', b'{"cost_usd":0.00000012,"prompt') + DONE
    assert stream.num_deltas == 3


def test_usage_that_the_caller_did_not_ask_for_is_not_shown():
    stream = decoder(is_asked=False)
    assert stream.feed(ROLE + WORD + STOP + FINAL + DONE) == ROLE + WORD + STOP
    assert stream.usage == Usage(input_tokens=7, output_tokens=5)
    assert stream.finish(Decimal(1)) == DONE


def test_usage_beside_the_last_content_is_held_back_too():
    last = event(b"{}", b'"stop"', b"," + USAGE)
    stream = decoder()
    assert stream.feed(ROLE + WORD + last + DONE) == ROLE + WORD
    assert stream.finish(Decimal("0.5")) == last.replace(b'{"prompt', b'{"cost_usd":0.5,"prompt') + DONE


def test_usage_that_comes_with_every_chunk_counts_as_it_came_last():
    running = event(b'{"content":"a"}', end=b',"usage":{"prompt_tokens":7,"completion_tokens":1}}')
    stream = decoder()
    assert stream.feed(running) == running
    assert stream.feed(running + FINAL + DONE) == running
    assert stream.finish(None) == FINAL + DONE
    assert stream.usage == Usage(input_tokens=7, output_tokens=5)


def test_an_error_in_mid_stream_follows_what_came_before_it():
    stream = decoder()
    stream.feed(ROLE)
    assert stream.feed(WORD + ERROR + WORD) == ROLE + WORD
    with pytest.raises(ProviderFailed, match="busy") as caught:
        stream.feed(WORD)
    assert caught.value.failure.kind is FailureKind.OVERLOADED
    with pytest.raises(ProviderFailed, match="busy"):
        stream.finish(None)


@pytest.mark.parametrize("head", [b"", ROLE, b": ping\n\n"])
def test_an_error_before_any_content_leaves_nothing_to_take_back(head):
    stream = decoder()
    assert stream.feed(head) == b"" if head else True
    with pytest.raises(ProviderFailed, match="busy"):
        stream.feed(ERROR)


@pytest.mark.parametrize(
    "broken", [b'data: {"id": 1\n\n', b"data: []\n\n", b"data: 7\n\n", b'data: {"choices":[1],"error":null}\n\n']
)
def test_what_cannot_be_read_is_a_failure(broken):
    stream = decoder()
    assert stream.feed(WORD) == WORD
    with pytest.raises(ProviderFailed) as caught:
        stream.feed(broken)
    assert caught.value.failure.code == "upstream_unreadable"


@pytest.mark.parametrize("end", [b"", WORD[:-9], FINAL, FINAL[:-1]])
def test_a_stream_without_its_end_was_cut_short(end):
    stream = decoder()
    stream.feed(ROLE + WORD + end)
    with pytest.raises(ProviderFailed) as caught:
        stream.finish(None)
    assert caught.value.failure.kind is FailureKind.CLOSED


def test_text_that_reads_like_a_signal_is_passed_on():
    texts = (b"[DONE]", b'\\"error\\"', b'\\"usage\\":{\\"prompt_tokens\\":1}', b"error", b"prompt_tokens", b"}\\n\\n")
    stream = decoder()
    for text in texts:
        chunk = event(b'{"content":"' + text + b'"}')
        assert stream.feed(chunk) == chunk
    assert stream.usage is None


@given(st.lists(st.integers(1, 400), max_size=40), st.sampled_from([b"\n\n", b"\r\n\r\n"]), st.booleans())
def test_how_the_bytes_are_cut_changes_nothing(sizes, end, is_asked):
    whole = (ROLE + b": ping\n\n" + WORD * 3 + STOP + FINAL + DONE).replace(b"\n\n", end)
    stream, passed, rest = decoder(is_asked=is_asked), b"", whole
    for size in sizes:
        passed += stream.feed(rest[:size]) if rest[:size] else b""
        rest = rest[size:]
    passed += stream.feed(rest) if rest else b""
    passed += stream.finish(None)
    assert passed == (whole if is_asked else whole.replace(FINAL.replace(b"\n\n", end), b""))
    assert stream.usage == Usage(input_tokens=7, output_tokens=5)
