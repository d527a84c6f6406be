"""APIs that a provider speaks itself: the caller's own bytes, and the usage read from what passes."""

from __future__ import annotations

import json

import pytest
from anthropic.types import Message
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.responses import Response

from mlaas.providers.base import Call, Operation
from mlaas.providers.simulated.directive import Options
from mlaas.providers.simulated.messages_wire import MessagesWire
from mlaas.providers.simulated.responses_wire import ResponsesWire
from mlaas.providers.simulated.script import count_tokens, write_script
from tests.conformance.providers.asking import BASES, COST, build, build_call, build_upstream, expect

_URL = "http://127.0.0.1:9"


def speakers(operation: Operation) -> list[str]:
    return [kind for kind in BASES if operation in build(kind, _URL).operations]


def embed_call(**extra: object) -> Call:
    fields = {"model": "alias", "input": ["Write a sum.", "Now."], **extra}
    body = json.dumps(fields).encode()
    return Call(operation=Operation.EMBEDDINGS, model="alias", is_stream=False, fields=fields, body=body)


@pytest.mark.parametrize("kind", speakers(Operation.EMBEDDINGS))
@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings(simulated, client, kind, form):
    answer = build_upstream(kind, simulated[0], client).ask(embed_call(encoding_format=form, dimensions=8))
    value = json.loads(answer.body)
    assert len(value["data"]) == 2
    if form == "float":
        parsed = CreateEmbeddingResponse.model_validate(value)
        assert [len(each.embedding) for each in parsed.data] == [8, 8]
    assert answer.usage is not None
    assert answer.usage.input_tokens == count_tokens(["Write a sum.", "Now."])
    assert answer.usage.output_tokens == 0


@pytest.mark.parametrize("kind", speakers(Operation.COMPLETION))
def test_completions(simulated, client, kind):
    upstream = build_upstream(kind, simulated[0], client)
    answer = upstream.ask(build_call(Operation.COMPLETION))
    script = expect({"messages": [{"role": "user", "content": "Write a sum."}]})
    assert Completion.model_validate_json(answer.body).choices[0].text == script.text
    fed, tail, decoder = upstream.stream(
        build_call(Operation.COMPLETION, is_stream=True, stream_options={"include_usage": True})
    )
    assert b"[DONE]" not in fed
    assert b'"cost_usd":0.000012345' in tail
    assert decoder.usage == answer.usage
    assert decoder.usage is not None
    assert decoder.usage.output_tokens == script.output_tokens


@pytest.mark.parametrize("kind", speakers(Operation.MESSAGES))
def test_messages(simulated, client, kind):
    upstream = build_upstream(kind, simulated[0], client)
    call = build_call(Operation.MESSAGES)
    answer = upstream.ask(call, "m@cached=2,written=1")
    script = write_script(MessagesWire().read(call.fields), Options(cached=2, written=1), seed=0)
    assert Message.model_validate_json(answer.body).content[0].text == script.text
    fed, tail, decoder = upstream.stream(build_call(Operation.MESSAGES, is_stream=True), "m@cached=2,written=1")
    assert b"message_stop" not in fed
    assert b'"cost_usd":0.000012345' in tail
    for usage in (answer.usage, decoder.usage):
        assert usage is not None
        assert (usage.cache_read_tokens, usage.cache_write_tokens) == (2, 1)
        assert (usage.prompt_tokens, usage.output_tokens) == (script.input_tokens, script.output_tokens)


@pytest.mark.parametrize("kind", speakers(Operation.COUNT_TOKENS))
def test_counts_of_tokens(simulated, client, kind):
    fields = {"model": "alias", "messages": [{"role": "user", "content": "Write a sum."}]}
    body = json.dumps(fields).encode()
    call = Call(operation=Operation.COUNT_TOKENS, model="alias", is_stream=False, fields=fields, body=body)
    answer = build_upstream(kind, simulated[0], client).ask(call)
    assert json.loads(answer.body) == {"input_tokens": count_tokens(["Write a sum."])}


@pytest.mark.parametrize("kind", speakers(Operation.RESPONSES))
def test_responses(simulated, client, kind):
    upstream = build_upstream(kind, simulated[0], client)
    call = build_call(Operation.RESPONSES)
    answer = upstream.ask(call, "m@cached=2")
    script = write_script(ResponsesWire().read(call.fields), Options(cached=2), seed=0)
    value = json.loads(answer.body)
    value["output"] = [item for item in value["output"] if item["type"] != "search_results"]  # Perplexity's own
    assert Response.model_validate(value).output_text == script.text
    fed, tail, decoder = upstream.stream(build_call(Operation.RESPONSES, is_stream=True), "m@cached=2")
    assert b"response.completed" not in fed
    assert f'"cost_usd":{COST}'.encode() in tail
    for usage in (answer.usage, decoder.usage):
        assert usage is not None
        assert usage.cache_read_tokens == 2
        assert (usage.prompt_tokens, usage.output_tokens) == (script.input_tokens, script.output_tokens)
