"""Perplexity's agent API, from chats and from responses, and Sonar."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from mlaas.providers.base import Call, FailureKind, FieldError, Operation, ProviderFailed, Usage
from mlaas.providers.perplexity import Perplexity, PerplexitySonar
from mlaas.providers.sse import split_events
from tests.following import follow

AGENT = Perplexity(name="pplx", base_url="http://x/v1", api_key="k")
CITATION = {"type": "url_citation", "url": "http://a", "title": "A", "start_index": 0, "end_index": 2}
SEARCH = {"type": "search_results", "queries": ["q"], "results": [{"id": 1, "url": "http://a", "title": "A"}]}
FETCHED = {"type": "fetch_url_results", "contents": [{"url": "http://b", "title": "B", "snippet": "b"}]}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "héllo", "annotations": [CITATION]}],
}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_1",
    "name": "add",
    "arguments": '{"a":1}',
    "status": "completed",
    "thought_signature": "sig",
}
USAGE = {
    "input_tokens": 10,
    "output_tokens": 7,
    "total_tokens": 17,
    "input_tokens_details": {"cache_read_input_tokens": 4},
    "cost": {"currency": "USD", "input_cost": 0.00001, "output_cost": 0.00002, "total_cost": 0.00543},
}


def response(*output, **fields):
    usual = {"id": "r1", "object": "response", "created_at": 1, "status": "completed", "model": "perplexity/sonar"}
    return usual | {"output": list(output), "usage": USAGE} | fields


def chat(**fields):
    fields = {"model": "p", "messages": [{"role": "user", "content": "hi"}]} | fields
    stream = bool(fields.get("stream"))
    return Call(operation=Operation.CHAT, model="p", is_stream=stream, fields=fields, body=orjson.dumps(fields))


def ask(**fields):
    fields = {"model": "p", "input": "hi"} | fields
    stream = bool(fields.get("stream"))
    return Call(operation=Operation.RESPONSES, model="p", is_stream=stream, fields=fields, body=orjson.dumps(fields))


def encode(asked):
    request = AGENT.encode_request(asked, model="perplexity/sonar")
    assert request.path == "/agent"
    return orjson.loads(request.body)


def event(kind, **fields):
    return b"data: " + orjson.dumps({"type": kind, "sequence_number": 0, **fields}) + b"\n\n"


def test_a_chat_with_tools_images_and_a_schema_becomes_an_agent_request():
    function = {"name": "add", "description": "adds", "parameters": {"type": "object"}}
    tool_call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "add", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": "sig"}},
    }
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": [{"type": "text", "text": "be kind"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [tool_call], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    ]
    schema = {"name": "s", "schema": {"type": "object"}, "strict": True}
    asked = chat(
        messages=messages,
        tools=[{"type": "function", "function": function}, {"type": "web_search", "search_context_size": "low"}],
        response_format={"type": "json_schema", "json_schema": schema},
        max_completion_tokens=9,
        reasoning_effort="low",
        max_steps=2,
        temperature=None,
        top_p=1,
    )
    assert encode(asked) == {
        "model": "perplexity/sonar",
        "stream": False,
        "instructions": "be brief\n\nbe kind",
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA"},
                ],
            },
            {
                "type": "function_call",
                "call_id": "call_1",
                "name": "add",
                "arguments": "{}",
                "thought_signature": "sig",
            },
            {
                "type": "function_call_output",
                "call_id": "call_1",
                "output": "2",
                "name": "add",
                "thought_signature": "sig",
            },
        ],
        "tools": [{"type": "function", **function}, {"type": "web_search", "search_context_size": "low"}],
        "response_format": {"type": "json_schema", "json_schema": schema},
        "max_output_tokens": 9,
        "reasoning": {"effort": "low"},
        "max_steps": 2,
    }


def test_a_response_becomes_an_agent_request():
    asked = ask(
        input=[
            {"role": "user", "content": "hi"},
            {"type": "web_search_call", "id": "ws_0", "status": "completed", "action": {"type": "search"}},
            {**MESSAGE, "phase": None},
            {**CALL, "thought_signature": "sig"},
            {"type": "function_call_output", "call_id": "call_1", "output": "2", "id": "o", "status": "completed"},
        ],
        instructions="be brief",
        text={"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True}},
        reasoning={"effort": "xhigh"},
        tools=[{"type": "function", "name": "add", "parameters": {}, "strict": None}, {"type": "fetch_url"}],
        tool_choice="auto",
        store=False,
        metadata={"a": "b"},
        stream=True,
    )
    assert encode(asked) == {
        "model": "perplexity/sonar",
        "stream": True,
        "instructions": "be brief",
        "input": [
            {"type": "message", "role": "user", "content": "hi"},
            {"type": "message", "role": "assistant", "content": [{"type": "input_text", "text": "héllo"}]},
            {
                "type": "function_call",
                "call_id": "call_1",
                "name": "add",
                "arguments": '{"a":1}',
                "thought_signature": "sig",
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "2"},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
        },
        "reasoning": {"effort": "xhigh"},
        "tools": [{"type": "function", "name": "add", "parameters": {}}, {"type": "fetch_url"}],
    }


def test_tool_choice_none_sends_no_tools():
    assert "tools" not in encode(chat(tools=[{"type": "web_search"}], tool_choice="none"))


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (chat(temperature=0.2), "temperature"),
        (chat(seed=1), "seed"),
        (chat(models=["a/b"]), "models"),
        (chat(reasoning_effort="none"), "reasoning_effort"),
        (chat(response_format={"type": "json_object"}), "response_format"),
        (chat(tools=[{"type": "x_search"}]), "tools[0]"),
        (chat(tools=[{"type": "web_search"}], tool_choice="required"), "tool_choice"),
        (chat(tools=[{"type": "web_search"}], parallel_tool_calls=False), "parallel_tool_calls"),
        (chat(messages=[{"role": "critic", "content": "x"}]), "messages[0].role"),
        (chat(messages=[{"role": "user", "content": [{"type": "input_audio"}]}]), "messages[0].content[0]"),
        (chat(messages=[{"role": "user", "content": "x", "name": "n"}]), "messages[0].name"),
        (chat(messages=[{"role": "tool", "content": "x"}]), "messages[0].tool_call_id"),
        (ask(models=["a/b"]), "models"),
        (ask(temperature=0.5), "temperature"),
        (ask(truncation="auto"), "truncation"),
        (ask(reasoning={"summary": "auto"}), "reasoning.summary"),
        (ask(text={"verbosity": "low"}), "text.verbosity"),
        (ask(previous_response_id="r"), "previous_response_id"),
        (ask(input=[{"type": "item_reference", "id": "x"}]), "input[0]"),
        (ask(input=[{"role": "user", "content": [{"type": "input_file"}]}]), "input[0].content[0]"),
    ],
)
def test_what_the_agent_cannot_honour_is_refused_by_name(asked, field):
    with pytest.raises(FieldError) as refused:
        encode(asked)
    assert refused.value.param == field


def test_an_answer_becomes_a_chat_completion_with_citations_calls_and_the_bill():
    answer = AGENT.decode_answer(chat(), orjson.dumps(response(SEARCH, MESSAGE, CALL)))
    assert answer.usage == Usage(
        input_tokens=6, cache_read_tokens=4, output_tokens=7, reported_cost_usd=Decimal("0.00543")
    )
    completion = ChatCompletion.model_validate_json(answer.body, strict=True)
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "héllo"
    assert choice.message.annotations[0].url_citation.url == "http://a"
    (tool_call,) = orjson.loads(answer.body)["choices"][0]["message"]["tool_calls"]
    assert tool_call["extra_content"] == {"google": {"thought_signature": "sig"}}
    assert choice.message.model_extra["search_results"] == SEARCH["results"]


def test_an_answer_to_a_response_has_all_that_openais_has():
    answer = AGENT.decode_answer(ask(instructions="be brief"), orjson.dumps(response(SEARCH, FETCHED, MESSAGE, CALL)))
    value = Response.model_validate_json(answer.body, strict=True)
    search, fetched = value.output[:2]
    assert (search.action.queries, search.action.sources[0].url) == (["q"], "http://a")
    assert search.model_extra["results"] == SEARCH["results"]
    assert fetched.action.url == "http://b"
    assert (value.instructions, value.output_text, value.usage.input_tokens_details.cached_tokens) == (
        "be brief",
        "héllo",
        4,
    )
    assert answer.usage is not None
    assert answer.usage.reported_cost_usd == Decimal("0.00543")


def agent_stream():
    opened = {**MESSAGE, "content": [], "status": "in_progress"}
    place = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    return [
        event("response.created", response=response(status="in_progress", usage=None)),
        event("response.reasoning.search_queries", queries=["q"]),
        event("response.output_item.done", item=SEARCH, output_index=0),
        event("response.output_item.added", item=opened, output_index=1),
        event("response.output_text.delta", delta="hé", **place),
        event("response.output_text.delta", delta="llo", **place),
        event("response.output_text.done", text="héllo", **place),
        event("response.output_item.done", item=MESSAGE, output_index=1),
        event("response.output_item.added", item={**CALL, "arguments": ""}, output_index=2),
        event("response.output_item.done", item=CALL, output_index=2),
        event("response.completed", response=response(SEARCH, MESSAGE, CALL)),
    ]


def read(asked, stream, position):
    decoder = AGENT.decode_stream(asked)
    data = decoder.feed(stream[:position]) + decoder.feed(stream[position:])
    assert decoder.usage is not None
    assert decoder.usage.reported_cost_usd == Decimal("0.00543")
    return data, decoder.finish(Decimal("0.00543"))


def test_a_chat_stream_cut_at_every_byte_says_the_same():
    stream = b"".join(agent_stream())
    asked = chat(stream=True, stream_options={"include_usage": True})
    for position in range(0, len(stream) + 1, 3):
        head, tail = read(asked, stream, position)
        payloads = split_events(head + tail)
        assert payloads.pop() == b"[DONE]"
        chunks = [ChatCompletionChunk.model_validate_json(each) for each in payloads]
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        assert "".join(delta.content or "" for delta in deltas) == "héllo"
        assert [call.function.arguments for delta in deltas for call in delta.tool_calls or ()] == ['{"a":1}']
        assert [found for delta in deltas for found in delta.model_extra.get("search_results") or ()] == SEARCH[
            "results"
        ]
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "tool_calls"
        assert chunks[-1].usage.total_tokens == 17
        assert chunks[-1].usage.model_extra["cost_usd"] == 0.00543


def test_a_response_stream_cut_at_every_byte_can_be_followed_by_openais_client():
    stream = b"".join(agent_stream())
    adapter = TypeAdapter(ResponseStreamEvent)
    for position in range(0, len(stream) + 1, 7):
        head, tail = read(ask(stream=True), stream, position)
        values = [orjson.loads(each) for each in split_events(head + tail)]
        assert [value["sequence_number"] for value in values] == list(range(len(values)))
        for value in values:
            adapter.validate_json(orjson.dumps(value), strict=True)
        texts = [each.snapshot for each in follow(values) if each.type == "response.output_text.delta"]
        assert texts == ["hé", "héllo"]
        assert values[-1]["response"]["usage"]["cost_usd"] == 0.00543


def test_a_failure_in_the_stream_is_seen_and_a_missing_end_too():
    failed = event("response.failed", error={"message": "no", "type": "rate_limit_exceeded"})
    for asked in (chat(stream=True), ask(stream=True)):
        with pytest.raises(ProviderFailed) as seen:
            AGENT.decode_stream(asked).feed(agent_stream()[0] + failed)
        assert seen.value.failure.kind is FailureKind.OVERLOADED
        decoder = AGENT.decode_stream(asked)
        decoder.feed(b"".join(agent_stream()[:-1]))
        with pytest.raises(ProviderFailed) as seen:
            decoder.finish(None)
        assert seen.value.failure.kind is FailureKind.CLOSED


@pytest.mark.parametrize("asked", [chat(stream=True), ask(stream=True)])
def test_an_event_without_its_parts_is_unreadable(asked):
    with pytest.raises(ProviderFailed) as seen:
        AGENT.decode_stream(asked).feed(event("response.output_text.delta") + event("response.output_item.done"))
    assert seen.value.failure.code == "upstream_unreadable"


SONAR_USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 6,
    "total_tokens": 11,
    "citation_tokens": 3,
    "reasoning_tokens": 2,
    "cost": {"input_tokens_cost": 0.1, "output_tokens_cost": 0.2, "total_cost": 0.041},
}


def test_sonar_passes_and_its_bill_is_read():
    sonar = PerplexitySonar(name="sonar", base_url=PerplexitySonar.default_url, api_key="k")
    assert sonar.encode_request(chat(), model="sonar-pro").path == "/chat/completions"
    body = orjson.dumps({"choices": [], "usage": SONAR_USAGE, "citations": ["http://a"]})
    answer = sonar.decode_answer(chat(), body)
    assert answer.body is body
    assert answer.usage == Usage(
        input_tokens=5, output_tokens=11, reasoning_tokens=2, reported_cost_usd=Decimal("0.041")
    )


def test_sonars_chunks_each_state_a_usage_and_the_last_one_counts():
    sonar = PerplexitySonar(name="sonar", base_url="http://x", api_key="k")
    decoder = sonar.decode_stream(chat(stream=True))

    def chunk(text, reason, cost):
        choice = {"index": 0, "delta": {"content": text}, "message": {"content": text}, "finish_reason": reason}
        usage = {**SONAR_USAGE, "cost": {"total_cost": cost}}
        return b"data: " + orjson.dumps({"choices": [choice], "usage": usage, "citations": ["http://a"]}) + b"\n\n"

    stream = chunk("a", None, 0) + chunk("b", "stop", 0.041) + b"data: [DONE]\n\n"
    assert decoder.feed(stream) + decoder.finish(None) == stream
    assert decoder.usage is not None
    assert decoder.usage.reported_cost_usd == Decimal("0.041")
