"""Chat completions of any model as Messages answers, whole and streamed, and errors."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import orjson
import pytest
from anthropic.types import ErrorResponse

from mlaas.providers.base import Call, Failure, FailureKind, Operation, ProviderFailed
from mlaas.providers.thinking import read_thinking
from mlaas.router.dialects.messages import Messages
from tests.fakes.messages_sdk import accumulate, read_events, read_message

MESSAGES = Messages()
FIELDS = {"model": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "stop_sequences": ["END"]}
CALL = Call(operation=Operation.MESSAGES, model="x", is_stream=False, fields=FIELDS, body=b"")
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 4,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 6},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def complete(finish_reason="stop", *, stop_reason=None, **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish_reason}
    if stop_reason:
        choice["stop_reason"] = stop_reason
    value = {"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": USAGE}
    return read_message(MESSAGES.from_chat(CALL, orjson.dumps(value)))


def tool(text, index=0, call_id="c"):
    return {"index": index, "id": call_id, "type": "function", "function": {"name": "f", "arguments": text}}


def chunk(delta, finish_reason=None, **fields):
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    value = {"id": "chatcmpl-1", "model": "m", "choices": choices, **fields}
    return b"data: " + orjson.dumps(value) + b"\n\n"


def stream(*chunks, tail=b"data: [DONE]\n\n", cost_usd=None):
    translator = MESSAGES.stream_from_chat(CALL)
    return b"".join(translator.feed(each) for each in chunks) + translator.finish(tail, cost_usd)


@pytest.mark.parametrize(
    ("finish_reason", "message", "expected"),
    [
        ("stop", {"content": "x"}, "end_turn"),
        ("length", {"content": "x"}, "max_tokens"),
        ("tool_calls", {"tool_calls": [tool("{}")]}, "tool_use"),
        ("stop", {"tool_calls": [tool("{}")]}, "tool_use"),
        ("content_filter", {"content": "x"}, "refusal"),
        ("stop", {"refusal": "no"}, "refusal"),
        ("made_up", {"content": "x"}, "end_turn"),
    ],
)
def test_why_an_answer_ended(finish_reason, message, expected):
    assert complete(finish_reason, **message).stop_reason == expected
    delta = {key: value for key, value in message.items() if value is not None}
    assert accumulate(stream(chunk(delta, finish_reason))).stop_reason == expected


def test_the_stop_sequence_that_vllm_names():
    message = complete(content="x", stop_reason="END")
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")


def test_cached_tokens_are_no_input_tokens():
    usage = complete(content="x").usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (4, 6, 4)
    assert usage.output_tokens_details.thinking_tokens == 3


def test_reasoning_that_an_upstream_leaves_out_of_its_output_is_in_the_total():
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 20}
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    body = orjson.dumps({"id": "1", "model": "m", "choices": [choice], "usage": usage})
    counted = read_message(MESSAGES.from_chat(CALL, body)).usage
    assert (counted.output_tokens, counted.output_tokens_details.thinking_tokens) == (10, 6)


def test_another_providers_signature_stays_with_its_tool_call_and_comes_back():
    extra = {"google": {"thought_signature": "s"}}
    call = {**tool("{}"), "extra_content": extra}
    message = complete("tool_calls", tool_calls=[call])
    streamed = accumulate(stream(chunk({"tool_calls": [call]}, "tool_calls")))
    for answer in (message, streamed):
        (block,) = [each.to_dict() for each in answer.content]
        assert block["extra_content"] == extra
        result = {"type": "tool_result", "tool_use_id": "c", "content": "1"}
        turns = [{"role": "assistant", "content": [block]}, {"role": "user", "content": [result]}]
        asked = replace(CALL, fields={**FIELDS, "messages": [*FIELDS["messages"], *turns]})
        assert MESSAGES.to_chat(asked).fields["messages"][1]["tool_calls"][0]["extra_content"] == extra


URL = "https://example.com/page"
RESULT = {"url": URL, "title": "Page", "snippet": "said there", "date": None}
ANNOTATION = {"type": "url_citation", "url_citation": {"url": URL, "title": "Page", "start_index": 4, "end_index": 7}}


@pytest.mark.parametrize(
    ("fields", "message", "cited"),
    [
        ({}, {"annotations": [ANNOTATION], "search_results": [RESULT]}, "is."),
        ({}, {"search_results": [RESULT]}, "said there"),
        ({"citations": [URL], "search_results": [RESULT]}, {}, "said there"),
        ({"citations": [URL]}, {}, ""),
    ],
)
def test_what_an_answer_cites_is_cited_whole_and_streamed(fields, message, cited):
    choice = {"index": 0, "message": {"content": "so, is.", **message}, "finish_reason": "stop"}
    completion = {"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": USAGE, **fields}
    whole = read_message(MESSAGES.from_chat(CALL, orjson.dumps(completion)))
    streamed = accumulate(
        stream(chunk({"content": "so,"}, **fields), chunk({"content": " is."}), chunk(message, "stop"))
    )
    for answer in (whole, streamed):
        [block] = answer.content
        [citation] = block.citations
        assert (citation.type, citation.url, citation.cited_text) == ("web_search_result_location", URL, cited)
    history = [{"role": "user", "content": "hi"}, whole.model_dump(include={"role", "content"}), FIELDS["messages"][0]]
    fields = {**FIELDS, "messages": history}
    assert MESSAGES.to_chat(replace(CALL, fields=fields)).fields["messages"][1]["content"] == "so, is."


def test_reasoning_text_becomes_a_thinking_block_that_no_model_takes_for_its_own():
    thinking, text = complete(content="4", reasoning_content="2 + 2").content
    assert (thinking.thinking, text.text) == ("2 + 2", "4")
    assert read_thinking(thinking.to_dict(), model="claude-opus-5") is None
    streamed = accumulate(
        stream(chunk({"reasoning": "2 +"}), chunk({"reasoning": " 2"}), chunk({"content": "4"}, "stop"))
    )
    assert [block.to_dict() for block in streamed.content] == [thinking.to_dict(), text.to_dict()]


def test_thinking_blocks_that_come_whole_open_and_close_one_by_one():
    blocks = [
        {"type": "thinking", "thinking": "a", "signature": "s1"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "thinking", "thinking": "", "signature": "s2"},
    ]
    whole = chunk({"reasoning_content": "a", "thinking_blocks": blocks, "content": "4"}, "stop")
    assert [block.to_dict() for block in accumulate(stream(whole)).content] == [*blocks, {"type": "text", "text": "4"}]


def test_a_tool_call_cut_off_by_the_bound_is_left_out():
    message = complete("length", content="so", tool_calls=[tool('{"a": ')])
    assert [block.type for block in message.content] == ["text"]


@pytest.mark.parametrize("text", ['{"a": ', "[1]", "5"])
def test_arguments_that_are_no_object_are_a_failure(text):
    with pytest.raises(ProviderFailed, match="arguments"):
        complete("tool_calls", tool_calls=[tool(text)])


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"choices": []}', b'{"choices": [{}]}'])
def test_an_answer_that_is_no_completion_is_a_failure(answer):
    with pytest.raises(ProviderFailed):
        MESSAGES.from_chat(CALL, answer)


def test_parallel_tool_calls_stream_into_blocks_of_their_own():
    message = accumulate(
        stream(
            chunk({"role": "assistant", "content": "I add."}),
            chunk({"tool_calls": [tool("", 0, "a")]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}),
            chunk({"tool_calls": [tool('{"y": 2}', 1, "b"), tool("", 2, "c")]}),
            chunk({}, "tool_calls"),
        )
    )
    blocks = [block.to_dict() for block in message.content]
    assert blocks[0] == {"type": "text", "text": "I add."}
    assert [(block["id"], block["input"]) for block in blocks[1:]] == [("a", {"x": 1}), ("b", {"y": 2}), ("c", {})]


def test_pieces_of_two_calls_that_mix_are_a_failure():
    with pytest.raises(ProviderFailed, match="arguments"):
        stream(
            chunk({"tool_calls": [tool("", 0, "a"), tool("", 1, "b")]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        )


def test_the_end_of_a_stream_says_usage_and_cost():
    tail = b"data: " + orjson.dumps({"choices": [], "usage": USAGE}) + b"\n\ndata: [DONE]\n\n"
    events = stream(chunk({"content": "x"}, "stop"), tail=tail, cost_usd=Decimal("0.00001230"))
    delta = read_events(events)[-2]
    assert delta["usage"]["cost_usd"] == 0.0000123
    assert accumulate(events).usage.cache_read_input_tokens == 6


def test_a_stream_without_usage_counts_its_pieces():
    events = stream(chunk({"content": "a"}), chunk({"content": "b"}, "stop"))
    start, usage = read_events(events)[0]["message"]["usage"], accumulate(events).usage
    assert (usage.input_tokens, usage.output_tokens) == (start["input_tokens"], 2)


def test_a_stream_without_content_is_an_empty_message():
    message = accumulate(stream(tail=chunk({}, "stop") + b"data: [DONE]\n\n"))
    assert (message.content, message.stop_reason) == ([], "end_turn")
    assert accumulate(stream()).content == []


def test_nothing_goes_out_for_nothing():
    assert MESSAGES.stream_from_chat(CALL).feed(b": comment\n\n") == b""


def test_a_chunk_that_is_none_is_a_failure():
    with pytest.raises(ProviderFailed):
        MESSAGES.stream_from_chat(CALL).feed(b"data: [1]\n\n")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_errors_have_anthropics_shape_and_our_code(status, kind):
    failure = Failure(kind=FailureKind.FAILED, status=status, code="our_code", message="why")
    body = orjson.loads(MESSAGES.encode_error(failure))
    answer = ErrorResponse.model_validate(body)
    assert (answer.error.type, answer.error.message) == (kind, "why")
    assert body["error"]["details"] == {"error_code": "our_code"}
    named = orjson.loads(MESSAGES.encode_error(replace(failure, param="top_k")))
    assert named["error"]["details"] == {"error_code": "our_code", "param": "top_k"}
    assert MESSAGES.encode_stream_error(failure) == b"event: error\ndata: " + orjson.dumps(body) + b"\n\n"
