"""Completions, for providers that have only chats."""

from __future__ import annotations

import json
from decimal import Decimal

import orjson
import pytest
from openai.types import Completion

from mlaas.providers.base import Call, FieldError, Operation, ProviderFailed
from mlaas.router.dialects.completions import DEFAULT_MAX_TOKENS, Completions
from mlaas.router.dialects.embeddings import Embeddings

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def call(*, is_stream=False, **fields) -> Call:
    fields = {"model": "m", "prompt": "Once", **fields, **({"stream": True} if is_stream else {})}
    body = orjson.dumps(fields)
    return Call(operation=Operation.COMPLETION, model="m", is_stream=is_stream, fields=fields, body=body)


def event(choices, **extra) -> bytes:
    return b"data: " + orjson.dumps({**HEAD, "choices": choices, **extra}) + b"\n\n"


def delta(text, finish_reason=None):
    return [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]


def test_the_prompt_becomes_a_message_and_the_rest_stays():
    chat = Completions().to_chat(call(prompt=["Once"], temperature=0.5, stop="x", echo=False, best_of=1, n=2))
    assert chat.fields == json.loads(chat.body)
    assert chat.fields == {
        "model": "m",
        "messages": [{"role": "user", "content": "Once"}],
        "max_completion_tokens": DEFAULT_MAX_TOKENS,
        "temperature": 0.5,
        "stop": "x",
        "n": 2,
    }
    assert Completions().to_chat(call(max_tokens=0)).fields["max_completion_tokens"] == 0
    assert Completions().to_chat(call(is_stream=True)).fields["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 0}, "logprobs"),
        ({"guided_regex": "x"}, "guided_regex"),
    ],
)
def test_what_a_chat_cannot_say_is_refused_by_name(fields, param):
    with pytest.raises(FieldError) as caught:
        Completions().to_chat(call(**fields))
    assert caught.value.param == param


def test_an_answer_is_a_completion():
    choices = [{"index": 0, "message": {"role": "assistant", "content": "upon"}, "finish_reason": "length"}]
    answer = orjson.dumps({**HEAD, "choices": choices, "usage": USAGE})
    completion = Completion.model_validate_json(Completions().from_chat(call(), answer), strict=True)
    assert (completion.choices[0].text, completion.choices[0].finish_reason) == ("upon", "length")
    assert completion.usage.total_tokens == 5
    with pytest.raises(ProviderFailed):
        Completions().from_chat(call(), b'{"choices": [1]}')


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_stream_is_made_of_completions(is_asked):
    translator = Completions().stream_from_chat(call(is_stream=True, stream_options={"include_usage": is_asked}))
    role = event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    assert translator.feed(role) == b""
    events = translator.feed(event(delta(" upon")) + event(delta(" a"))) + translator.feed(event(delta(None, "stop")))
    events += translator.finish(event([], usage=USAGE) + b"data: [DONE]\n\n", Decimal("0.0000015"))
    payloads = [block.removeprefix(b"data: ") for block in events.split(b"\n\n") if block]
    assert payloads.pop() == b"[DONE]"
    chunks = [json.loads(payload) for payload in payloads]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    choices = [(choice["text"], choice["finish_reason"]) for chunk in chunks for choice in chunk["choices"]]
    assert choices == [(" upon", None), (" a", None), ("", "stop")]
    usages = [chunk["usage"] for chunk in chunks if "usage" in chunk]
    assert usages == ([{**USAGE, "cost_usd": 0.0000015}] if is_asked else [])


def test_a_torn_chunk_is_a_failure():
    with pytest.raises(ProviderFailed):
        Completions().stream_from_chat(call(is_stream=True)).feed(b'data: {"id": 1\n\n')


def test_embeddings_are_never_a_chat():
    Embeddings().check({"model": "m", "input": [[1, 2]]})
    for fields, param in (({"input": ""}, "input"), ({}, "input"), ({"input": "x", "stream": True}, "stream")):
        with pytest.raises(FieldError) as caught:
            Embeddings().check(fields)
        assert caught.value.param == param
    with pytest.raises(FieldError, match="no embeddings"):
        Embeddings().to_chat(call())
