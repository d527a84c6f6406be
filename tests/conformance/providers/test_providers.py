"""What every provider makes of a chat, each against an upstream that speaks its wire format."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from mlaas.providers.base import FieldError, Operation
from mlaas.providers.build import KINDS
from mlaas.providers.simulated.wire import bill_usd
from mlaas.providers.vllm import LOCAL
from tests.conformance.providers.asking import (
    BASES,
    COST,
    KEY,
    MESSAGES,
    build_call,
    build_upstream,
    expect,
    join_calls,
    read_chunks,
)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "x",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city", "days"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("weather", "news")
]
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}, "ok": {"type": "boolean"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
WITH_TOOLS = [kind for kind in BASES if kind != "perplexity_sonar"]
"""Sonar has none."""
BILLED = ("xai", "perplexity", "perplexity_sonar")


def test_every_kind_is_here():
    assert set(BASES) == {*KINDS, LOCAL}


def test_an_answer_is_a_chat_completion(kind, upstream, simulator):
    call = build_call(max_completion_tokens=50)
    answer = upstream.ask(call)
    completion = ChatCompletion.model_validate_json(answer.body)
    script = expect(call.fields)
    assert completion.choices[0].message.content == script.text
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == script.input_tokens + script.output_tokens
    assert simulator.seen[-1].fields["model"] == "m"
    assert (KEY in str(simulator.seen[-1].headers)) is (kind != LOCAL)


@pytest.mark.parametrize("is_stream", [False, True])
def test_usage_is_exact_and_every_token_counted_once(kind, upstream, is_stream):
    model = "m@cached=3,written=0" if kind in ("gemini", *BILLED) else "m@cached=3,written=2"
    effort = {} if kind == "perplexity_sonar" else {"reasoning_effort": "low"}
    call = build_call(is_stream=is_stream, max_completion_tokens=4000, **effort)
    usage = upstream.stream(call, model)[2].usage if is_stream else upstream.ask(call, model).usage
    script = expect(call.fields, model)
    assert usage is not None
    assert usage.cache_read_tokens == 3
    assert usage.cache_write_tokens == script.cache_write_tokens
    assert usage.prompt_tokens == script.input_tokens
    assert usage.output_tokens == script.output_tokens
    assert usage.total_tokens == script.input_tokens + script.output_tokens
    if kind != "anthropic":
        assert usage.reasoning_tokens == script.reasoning_tokens
    if kind in BILLED:
        assert usage.reported_cost_usd is not None
        assert usage.reported_cost_usd.quantize(Decimal("1e-10")) == bill_usd(script)
    else:
        assert usage.reported_cost_usd is None


@pytest.mark.parametrize("cut", ["as it comes", "byte by byte", "all at once"])
@pytest.mark.parametrize("is_usage_asked", [True, False, None])
def test_a_stream_is_made_of_chunks_however_its_bytes_arrive(upstream, cut, is_usage_asked):
    options = {} if is_usage_asked is None else {"stream_options": {"include_usage": is_usage_asked}}
    call = build_call(is_stream=True, max_completion_tokens=50, **options)
    held: list[bytes] = []
    cuts = {
        "as it comes": lambda chunk: [chunk],
        "byte by byte": lambda chunk: [bytes([byte]) for byte in chunk],
        "all at once": lambda chunk: held.append(chunk) or [],
    }
    if cut == "all at once":
        with upstream.post(call, "m") as response:
            whole = response.read()
        decoder = upstream.provider.decode_stream(call)
        fed, tail = decoder.feed(whole), decoder.finish(COST)
    else:
        fed, tail, decoder = upstream.stream(call, cut=cuts[cut])
    assert b"[DONE]" not in fed
    assert b'"usage":{' not in fed
    chunks = read_chunks(fed + tail)
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    script = expect(call.fields)
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == script.text
    assert choices[0]["delta"]["role"] == "assistant"
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert choices[-1]["finish_reason"] == "stop"
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert len(script.pieces) <= decoder.num_deltas <= len(script.pieces) + 2
    if is_usage_asked:
        assert chunks[-1]["usage"]["total_tokens"] == script.input_tokens + script.output_tokens
        assert chunks[-1]["usage"]["cost_usd"] == float(COST)
    elif not any(chunk.get("usage") for chunk in chunks):
        assert b"cost_usd" not in tail


@pytest.mark.parametrize("kind", WITH_TOOLS)
@pytest.mark.parametrize("is_stream", [False, True])
def test_parallel_tool_calls_go_there_and_back(kind, upstream, is_stream):
    """The second turn brings results; the simulated vendor checks the history as the real one does."""
    model = {"gemini": "gemini-3.8-flash"}.get(kind, "m")
    effort = {"reasoning_effort": "low"} if kind == "anthropic" else {}
    call = build_call(is_stream=is_stream, tools=TOOLS, max_completion_tokens=4000, **effort)
    if is_stream:
        fed, tail, _ = upstream.stream(call, model)
        chunks = read_chunks(fed + tail)
        reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
        assert [reason for reason in reasons if reason] == ["tool_calls"]
        message = {"role": "assistant", "content": None, "tool_calls": join_calls(chunks)}
        blocks = [b for chunk in chunks for c in chunk["choices"] for b in c["delta"].get("thinking_blocks") or ()]
        if blocks:
            message["thinking_blocks"] = blocks
    else:
        message = json.loads(upstream.ask(call, model).body)["choices"][0]["message"]
    script = expect(call.fields)
    made = [(each["function"]["name"], json.loads(each["function"]["arguments"])) for each in message["tool_calls"]]
    assert made == [(each.name, json.loads(each.arguments)) for each in script.calls]
    assert len({each["id"] for each in message["tool_calls"]}) == 2
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "fine"} for each in message["tool_calls"]]
    second = build_call(messages=[*MESSAGES, message, *results], tools=TOOLS, max_completion_tokens=4000, **effort)
    completion = ChatCompletion.model_validate_json(upstream.ask(second, model).body)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.choices[0].message.content


@pytest.mark.parametrize("kind", WITH_TOOLS)
def test_a_history_of_another_provider_is_taken(kind, upstream):
    """A conversation moves on: signatures of whoever answered before stay behind."""
    function = {"name": "weather", "arguments": '{"city":"x"}'}
    foreign = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "search_results": [{"title": "Page", "url": "https://example.com"}],
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "of another model"}],
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }
    result = {"role": "tool", "tool_call_id": "call_1", "content": "fine"}
    model = {"gemini": "gemini-3.8-flash", "openai": "gpt-4o"}.get(kind, "m")
    call = build_call(messages=[*MESSAGES, foreign, result], tools=TOOLS)
    assert json.loads(upstream.ask(call, model).body)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_keeps_to_a_schema(upstream, is_stream):
    call = build_call(is_stream=is_stream, response_format=FORMAT, max_completion_tokens=50)
    if is_stream:
        chunks = read_chunks(b"".join(upstream.stream(call)[:2]))
        text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])
    else:
        text = json.loads(upstream.ask(call).body)["choices"][0]["message"]["content"]
    assert json.loads(text) == {"sum": 1, "ok": True}


def test_a_bound_goes_under_the_name_that_the_model_takes(simulated, client, simulator):
    upstream = build_upstream("openai", simulated[0], client)
    for model, name in (
        ("gpt-5-mini", "max_completion_tokens"),
        ("o3", "max_completion_tokens"),
        ("gpt-4o", "max_tokens"),
    ):
        completion = ChatCompletion.model_validate_json(upstream.ask(build_call(max_tokens=5), model).body)
        assert completion.choices[0].finish_reason == "length"
        assert simulator.seen[-1].fields[name] == 5


def test_an_answer_that_is_too_long_says_so(upstream):
    completion = ChatCompletion.model_validate_json(upstream.ask(build_call(max_completion_tokens=5)).body)
    assert completion.choices[0].finish_reason == "length"


def test_a_model_is_asked_for_the_effort_or_the_field_is_refused_by_name(upstream, simulator):
    call = build_call(reasoning_effort="high", max_completion_tokens=4000)
    param = None
    try:
        upstream.ask(call)
    except FieldError as error:
        param = error.param
    assert param == "reasoning_effort" or b"high" in simulator.seen[-1].body


def test_what_a_provider_answers_includes_chats(upstream):
    assert Operation.CHAT in upstream.provider.operations
    assert Operation.COUNT_TOKENS not in upstream.provider.operations or Operation.MESSAGES in (
        upstream.provider.operations
    )
