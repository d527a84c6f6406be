"""The Responses API in front of chats: requests, answers, streams, and what survives the way there and back."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import completion_create_params
from openai.types.responses import Response, ResponseErrorEvent, ResponseStreamEvent
from pydantic import TypeAdapter

from mlaas.providers.base import Call, Failure, FailureKind, FieldError, Operation, ProviderFailed
from mlaas.providers.openai_compatible import OpenAICompatible
from mlaas.providers.sealed_thinking import seal_thinking
from mlaas.providers.sse import DONE, encode_event, split_events
from mlaas.router.dialects.responses import RESPONSES
from tests.following import follow

FUNCTION = {"name": "add", "description": "adds", "parameters": {"type": "object", "properties": {}}, "strict": True}
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
EVENTS = TypeAdapter(ResponseStreamEvent)


def ask(**fields):
    fields = {"model": "m", "input": "hi"} | fields
    RESPONSES.check(fields)
    stream = bool(fields.get("stream"))
    return Call(operation=Operation.RESPONSES, model="m", is_stream=stream, fields=fields, body=orjson.dumps(fields))


def chat_of(**fields):
    chat = RESPONSES.to_chat(ask(**fields))
    assert chat.operation is Operation.CHAT
    assert orjson.loads(chat.body) == chat.fields
    TypeAdapter(completion_create_params.CompletionCreateParamsNonStreaming).validate_python(
        {name: value for name, value in chat.fields.items() if name not in ("stream", "stream_options")}
    )
    return chat.fields


def completion(message, finish_reason="stop", **choice):
    message = {"role": "assistant", "content": None, **message}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, **choice}
    value = {"id": "c", "object": "chat.completion", "created": 5, "model": "big", "choices": [choice], "usage": USAGE}
    return orjson.dumps(value)


def answer(message, finish_reason="stop", *, asked=None, **choice):
    body = RESPONSES.from_chat(asked or ask(), completion(message, finish_reason, **choice))
    Response.model_validate_json(body, strict=True)
    return orjson.loads(body)


def chunk(delta, finish_reason=None, **choice):
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, **choice}
    return encode_event(orjson.dumps({"id": "c", "created": 5, "model": "big", "choices": [choice]}))


def usage_chunk():
    return encode_event(orjson.dumps({"id": "c", "created": 5, "model": "big", "choices": [], "usage": USAGE}))


def translate(*chunks, asked=None, cost_usd=None):
    translator = RESPONSES.stream_from_chat(asked or ask(stream=True))
    data = b"".join(translator.feed(each) for each in chunks)
    values = [orjson.loads(each) for each in split_events(data + translator.finish(usage_chunk() + DONE, cost_usd))]
    for value in values:
        EVENTS.validate_json(orjson.dumps(value), strict=True)
    assert [value["sequence_number"] for value in values] == list(range(len(values)))
    follow(values)
    return values


def test_a_request_becomes_a_chat():
    assert chat_of(
        instructions="be brief",
        input=[
            {"role": "developer", "content": "be kind"},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": "http://i", "detail": "low"},
                    {"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"},
                ],
            },
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm"}]},
            {
                "type": "message",
                "id": "msg",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "I add"}],
            },
            {"type": "function_call", "id": "fc", "call_id": "c1", "name": "add", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "add", "arguments": "{}", "extra_content": {"g": 1}},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
        ],
        tools=[{"type": "function", **FUNCTION}],
        tool_choice={"type": "function", "name": "add"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True}},
        reasoning={"effort": "high", "summary": "auto"},
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        truncation="disabled",
        metadata={"a": "b"},
        store=True,
        include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        top_logprobs=2,
        user="u",
        service_tier="auto",
    ) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "developer", "content": "be kind"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "http://i", "detail": "low"}},
                    {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
                ],
            },
            {
                "role": "assistant",
                "reasoning_content": "hm",
                "content": "I add",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}},
                    {
                        "id": "c2",
                        "type": "function",
                        "function": {"name": "add", "arguments": "{}"},
                        "extra_content": {"g": 1},
                    },
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "2"}]},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
        },
        "reasoning_effort": "high",
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "logprobs": True,
        "top_logprobs": 2,
        "user": "u",
    }


def test_a_streamed_request_asks_for_usage():
    fields = chat_of(stream=True, stream_options={"include_obfuscation": False})
    assert fields["messages"] == [{"role": "user", "content": "hi"}]
    assert (fields["stream"], fields["stream_options"]) == (True, {"include_usage": True})


def test_allowed_tools_are_the_only_ones_sent():
    tools = [{"type": "function", "name": name, "parameters": {}} for name in ("a", "b")]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    fields = chat_of(tools=tools, tool_choice=choice)
    assert [tool["function"]["name"] for tool in fields["tools"]] == ["b"]
    assert fields["tool_choice"] == "required"


def test_reasoning_that_only_its_writer_can_read_leaves_no_message():
    items = [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}, {"role": "user", "content": "x"}]
    assert chat_of(input=items)["messages"] == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"store": "yes"}, "store"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"service_tier": {"name": "x"}}, "service_tier"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "f", "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"truncation": "auto"}, "truncation"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "output_text"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "system", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        ({"input": [{"role": "assistant", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "function_call_output", "output": "c"}]}, "input[0].call_id"),
    ],
)
def test_what_a_chat_cannot_say_is_refused_by_name(fields, param):
    with pytest.raises(FieldError) as refused:
        RESPONSES.to_chat(ask(**fields))
    assert refused.value.param == param


def test_an_answer_repeats_its_request():
    asked = ask(
        instructions="be brief",
        tools=[{"type": "function", **FUNCTION}],
        tool_choice="required",
        parallel_tool_calls=False,
        metadata={"a": "b"},
        previous_response_id="resp_0",
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        reasoning={"effort": "low"},
        temperature=0.5,
        max_output_tokens=9,
        store=False,
    )
    response = answer({"content": "hé"}, asked=asked)
    for name in ("instructions", "tools", "tool_choice", "metadata", "previous_response_id", "text", "temperature"):
        assert response[name] == asked.fields[name]
    assert response["reasoning"] == {"effort": "low", "summary": None}
    assert (response["parallel_tool_calls"], response["store"], response["max_output_tokens"]) == (False, False, 9)
    assert (response["model"], response["created_at"], response["status"]) == ("big", 5, "completed")


def test_an_answer_has_reasoning_text_refusal_citations_logprobs_and_calls():
    logprob = {"token": "h", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "h", "logprob": -0.5}]}
    citation = {"url": "http://a", "title": "A", "start_index": 0, "end_index": 1}
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
    response = answer(
        {
            "content": "hé",
            "reasoning": "hm",
            "thinking_blocks": blocks,
            "annotations": [{"type": "url_citation", "url_citation": citation}],
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
        },
        "tool_calls",
        logprobs={"content": [logprob]},
    )
    reasoning, message, call = response["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert reasoning["encrypted_content"] == seal_thinking(blocks)
    (part,) = message["content"]
    assert part["text"] == "hé"
    assert part["annotations"] == [{"type": "url_citation", **citation}]
    assert part["logprobs"] == [
        {**logprob, "bytes": [], "top_logprobs": [{"token": "h", "logprob": -0.5, "bytes": []}]}
    ]
    assert (call["call_id"], call["name"], call["arguments"]) == ("c1", "add", "{}")
    assert answer({"refusal": "no"})["output"][0]["content"] == [{"type": "refusal", "refusal": "no"}]


def test_usage_is_translated():
    assert answer({"content": "x"})["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 17,
    }


def test_sonars_sources_stay():
    sources = {"citations": ["http://a"], "search_results": [{"url": "http://a", "title": "A"}]}
    whole = orjson.loads(completion({"content": "x"})) | sources
    response = orjson.loads(RESPONSES.from_chat(ask(), orjson.dumps(whole)))
    first = orjson.loads(split_events(chunk({"content": "x"}))[0]) | sources
    last = translate(encode_event(orjson.dumps(first)), chunk({}, "stop"))[-1]["response"]
    for name, value in sources.items():
        assert response[name] == last[name] == value


@pytest.mark.parametrize(
    ("reason", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_how_an_answer_ended(reason, status, details):
    response = answer({"content": "x"}, reason)
    last = translate(chunk({"content": "x"}), chunk({}, reason))[-1]
    for value in (response, last["response"]):
        assert (value["status"], value["incomplete_details"]) == (status, details)
        assert value["output"][0]["status"] == status
    assert last["type"] == f"response.{status}"


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"choices":[]}', b"[1]"])
def test_a_completion_that_is_none_is_unreadable(body):
    with pytest.raises(ProviderFailed):
        RESPONSES.from_chat(ask(), body)
    if body != b"{}":
        with pytest.raises(ProviderFailed):
            RESPONSES.stream_from_chat(ask()).feed(encode_event(body) if body[:1] != b"{" else b"data: {\n\n")


def test_the_events_of_a_whole_response_in_order():
    tool = {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": ""}}
    values = translate(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "h"}),
        chunk({"reasoning_content": "m"}),
        chunk({"content": "hé"}),
        chunk({"tool_calls": [tool]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        chunk({}, "tool_calls"),
        cost_usd=Decimal("0.00000012"),
    )
    assert [value["type"].removeprefix("response.") for value in values] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert values[-1]["response"]["usage"]["cost_usd"] == 0.00000012
    done = [value["item"] for value in values if value["type"] == "response.output_item.done"]
    assert done == values[-1]["response"]["output"]


def test_nothing_goes_out_before_the_first_output():
    translator = RESPONSES.stream_from_chat(ask(stream=True))
    assert translator.feed(chunk({"role": "assistant", "content": ""})) == b""
    assert translator.feed(chunk({"content": "x"})) != b""


def test_a_stream_without_output_is_still_whole():
    values = translate(chunk({}, "stop"))
    assert [value["type"] for value in values] == ["response.created", "response.in_progress", "response.completed"]


def test_arguments_that_come_in_turns_go_to_their_own_calls():
    def tool(index, **function):
        return {"index": index, "id": f"c{index}", "type": "function", "function": function}

    values = translate(
        chunk({"tool_calls": [tool(0, name="a", arguments="{"), tool(1, name="b", arguments="[")]}),
        chunk({"content": "meanwhile"}),
        chunk({"tool_calls": [tool(0, arguments="}"), tool(1, arguments="]")]}, "tool_calls"),
    )
    output = values[-1]["response"]["output"]
    assert [(item["type"], item.get("arguments")) for item in output] == [
        ("function_call", "{}"),
        ("function_call", "[]"),
        ("message", None),
    ]


def test_refusal_and_citations_in_a_stream():
    citation = {"url": "http://a", "title": "A", "start_index": 0, "end_index": 1}
    values = translate(
        chunk({"content": "x"}),
        chunk({"annotations": [{"type": "url_citation", "url_citation": citation}]}),
        chunk({"refusal": "no"}, "stop"),
    )
    (message,) = values[-1]["response"]["output"]
    assert message["content"][0]["annotations"] == [{"type": "url_citation", **citation}]
    assert message["content"][1] == {"type": "refusal", "refusal": "no"}


def test_a_provider_stream_cut_at_every_byte_gives_the_same_events():
    stream = chunk({"role": "assistant"}) + chunk({"content": "hé"}) + chunk({"content": "llo"}, "stop")
    stream += usage_chunk() + DONE
    chat = RESPONSES.to_chat(ask(stream=True))
    kinds = set()
    for position in range(len(stream) + 1):
        decoder = OpenAICompatible(name="x", base_url="http://x").decode_stream(chat)
        translator = RESPONSES.stream_from_chat(ask(stream=True))
        data = b"".join(translator.feed(decoder.feed(each)) for each in (stream[:position], stream[position:]))
        data += translator.finish(decoder.finish(Decimal(1)), Decimal(1))
        values = [orjson.loads(each) for each in split_events(data)]
        assert "".join(value["delta"] for value in values if value["type"].endswith("text.delta")) == "héllo"
        assert values[-1]["response"]["usage"]["total_tokens"] == 17
        assert values[-1]["response"]["usage"]["cost_usd"] == 1
        kinds.add(tuple(value["type"] for value in values))
    assert len(kinds) == 1


def test_errors_have_openais_shapes():
    failure = Failure(kind=FailureKind.FAILED, status=502, code="upstream_closed", message="m", param="p")
    assert orjson.loads(RESPONSES.encode_error(failure))["error"]["code"] == "upstream_closed"
    (payload,) = split_events(RESPONSES.encode_stream_error(failure))
    event = ResponseErrorEvent.model_validate_json(payload, strict=True)
    assert (event.code, event.message, event.param) == ("upstream_closed", "m", "p")
    assert orjson.loads(payload)["error"]["message"] == "m"


# The client's types are built when they are first used, which takes longer than any example.
unhurried = settings(deadline=None, max_examples=50)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1)
THINKING = st.fixed_dictionaries({"type": st.just("thinking"), "thinking": st.text(), "signature": st.text()})
TOOL_CALL = st.fixed_dictionaries(
    {
        "id": TEXT,
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": TEXT, "arguments": st.text()}),
    },
    optional={"extra_content": st.just({"google": {"thought_signature": "s"}})},
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant")},
    optional={
        "content": TEXT,
        "refusal": TEXT,
        "reasoning_content": TEXT,
        "thinking_blocks": st.lists(THINKING, min_size=1),
        "tool_calls": st.lists(TOOL_CALL, min_size=1, unique_by=lambda call: call["id"]),
    },
).filter(lambda message: len(message) > 1)


@unhurried
@given(message=MESSAGE)
def test_what_a_model_said_comes_back_to_it_whole(message):
    items = answer(message)["output"]
    (back,) = RESPONSES.to_chat(ask(input=items)).fields["messages"]
    assert back == {"content": None, **message}


@unhurried
@given(message=MESSAGE, data=st.data())
def test_a_stream_ends_with_the_response_that_would_have_come_whole(message, data):
    deltas = [{"thinking_blocks": message["thinking_blocks"]}] if "thinking_blocks" in message else []
    for name in ("reasoning_content", "content", "refusal"):
        text = message.get(name, "")
        cut = data.draw(st.integers(0, len(text)))
        deltas += [{name: piece} for piece in (text[:cut], text[cut:]) if piece]
    for index, call in enumerate(message.get("tool_calls", ())):
        arguments = call["function"]["arguments"]
        cut = data.draw(st.integers(0, len(arguments)))
        first = {**call["function"], "arguments": arguments[:cut]}
        deltas.append({"tool_calls": [{**call, "index": index, "function": first}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": arguments[cut:]}}]})
    reason = data.draw(st.sampled_from(["stop", "length", "content_filter"]))
    values = translate(*map(chunk, deltas), chunk({}, reason))
    done = {value["output_index"]: value["item"] for value in values if value["type"] == "response.output_item.done"}
    assert [done[index] for index in sorted(done)] == values[-1]["response"]["output"]

    def bare(response):
        output = [{name: value for name, value in item.items() if name != "id"} for item in response["output"]]
        return {**response, "output": output, "id": None, "completed_at": None}

    assert bare(values[-1]["response"]) == bare(answer(message, reason, asked=ask(stream=True)))


PART = st.builds(lambda text: {"type": "input_text", "text": text}, TEXT) | st.builds(
    lambda url: {"type": "input_image", "image_url": url}, TEXT
)
ITEM = st.one_of(
    st.builds(lambda parts: {"role": "user", "content": parts}, st.lists(PART, min_size=1)),
    st.builds(lambda text: {"role": "assistant", "content": text}, TEXT),
    st.builds(lambda text: {"role": "developer", "content": text}, TEXT),
    st.builds(lambda text: {"type": "function_call_output", "call_id": text, "output": text}, TEXT),
    st.builds(lambda text: {"type": "function_call", "call_id": text, "name": "f", "arguments": text}, TEXT),
    st.builds(lambda text: {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}, TEXT),
)


def texts_of(items):
    for item in items:
        for key in ("content", "summary"):
            value = item.get(key)
            for part in value if isinstance(value, list) else [{"text": value}] if value else ():
                yield part.get("text") or part["image_url"]
        yield from (item[key] for key in ("output", "arguments") if key in item)


def words_of(messages):
    for message in messages:
        if "reasoning_content" in message:
            yield message["reasoning_content"]
        content = message.get("content")
        for part in content if isinstance(content, list) else [{"text": content}] if content else ():
            yield part.get("text") or part["image_url"]["url"]
        yield from (call["function"]["arguments"] for call in message.get("tool_calls") or ())


@unhurried
@given(items=st.lists(ITEM, min_size=1, max_size=8))
def test_translation_keeps_every_item(items):
    messages = chat_of(input=items)["messages"]
    said = list(words_of(messages))
    for text in texts_of(items):
        assert any(text in each for each in said)
    turns = [item for item in items if item.get("role") in ("user", "developer") or "output" in item]
    kept = [message for message in messages if message["role"] != "assistant"]
    assert len(kept) == len(turns)
    calls = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
    assert calls == [item["call_id"] for item in items if item.get("type") == "function_call"]
