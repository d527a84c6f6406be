"""Chats, completions and embeddings with the official `openai` SDK, in front of every kind of provider."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from mlaas.providers.simulated.server import Simulator
from mlaas.router.types import LocalEndpoint
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulated_answer, simulating
from tests.fakes.vendors import vendors
from tests.waiting import wait_until

GPT = "openai/gpt-4o"
THINKING_GPT = "openai/gpt-5-mini"
CLAUDE = "anthropic/claude-sonnet-4-6"
GEMINI = "gemini/gemini-3.8-flash"
SONAR = "perplexity/perplexity/sonar"
GROK = "xai/grok-4.7"
LOCAL = "local/tiny"
HOUSE = "house/m"
MODELS = [GPT, THINKING_GPT, CLAUDE, GEMINI, SONAR, GROK, LOCAL, HOUSE]

PROMPT = "Write a sum."
MESSAGES = [{"role": "user", "content": PROMPT}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FIELDS: dict[str, dict[str, Any]] = {
    "stop": {"stop": ["the"]},
    "seed": {"seed": 7},
    "n": {"n": 2},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "temperature": {"temperature": 0.3},
    "reasoning_effort": {"reasoning_effort": "low"},
    "response_format": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": CITY}}
    },
    "tools": {
        "tools": [{"type": "function", "function": {"name": name, "parameters": CITY}} for name in ("weather", "news")]
    },
    "messages": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": PROMPT},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                ],
            },
        ]
    },
}
REFUSED = {
    GPT: {"reasoning_effort"},
    THINKING_GPT: {"stop", "logprobs", "temperature"},
    CLAUDE: {"seed", "n", "logprobs"},
    GEMINI: {"logprobs"},
    SONAR: {"stop", "seed", "n", "logprobs", "temperature"},
    GROK: {"stop"},
    LOCAL: set(),
    HOUSE: set(),
}
"""What the models cannot honour, by their vendors' references."""
CASES = [(model, field) for model in MODELS for field in FIELDS]


@pytest.fixture(scope="module")
def simulated() -> Iterator[tuple[str, Simulator]]:
    with simulating() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(simulated, tmp_path_factory) -> Iterator[Gateway]:
    url = simulated[0]
    droppable = json.dumps([*FIELDS, "top_logprobs"])
    aliases = "".join(
        f"  lax-{number}: {{targets: [{model}], drop_params: {droppable}}}\n" for number, model in enumerate(MODELS)
    )
    with running_gateway(
        tmp_path_factory.mktemp("gateway"),
        f"{vendors(url)}models:\n{aliases}",
        endpoints=[LocalEndpoint(model="tiny", url=f"{url}/vllm")],
        deployed=["tiny"],
    ) as running:
        yield running


@pytest.fixture
def simulator(simulated) -> Simulator:
    simulated[1].seen.clear()
    return simulated[1]


@pytest.fixture(scope="module")
def client(gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as sdk:
        wait_until(lambda: LOCAL.partition("/")[2] in [each.id for each in sdk.models.list()], what="the local model")
        yield sdk


@pytest.fixture(scope="module")
def raw(gateway) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {gateway.key}"}
    with httpx.Client(base_url=f"{gateway.url}/v1", headers=headers, timeout=20) as http:
        yield http


def ask(raw: httpx.Client, model: str, **fields: Any) -> ChatCompletion:
    """Return a whole answer that OpenAI's types agree to, strictly."""
    answer = raw.post("/chat/completions", json={"model": model, "messages": MESSAGES, **fields})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mlaas-provider"]
    assert answer.headers["x-mlaas-route-reason"]
    assert answer.headers["x-mlaas-cache"] == "bypass"
    return ChatCompletion.model_validate_json(answer.content, strict=True)


def stream(raw: httpx.Client, model: str, **fields: Any) -> list[ChatCompletionChunk]:
    """Return a stream's chunks, each as OpenAI's types have it."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer = raw.post("/chat/completions", json={"model": model, "messages": MESSAGES, **options, **fields})
    assert answer.status_code == 200, answer.text
    *events, last = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert last == "[DONE]"
    return [ChatCompletionChunk.model_validate_json(event, strict=True) for event in events]


def text_of(chunks: list[ChatCompletionChunk], *, index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


@pytest.mark.parametrize("model", MODELS)
def test_whole_and_streamed_answers_are_alike(raw: httpx.Client, model: str) -> None:
    whole, chunks = ask(raw, model), stream(raw, model)
    assert whole.choices[0].message.content == text_of(chunks) == simulated_answer(PROMPT).text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk for chunk in chunks if chunk.usage] == [chunks[-1]]
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens > 0


@pytest.mark.parametrize(("model", "field"), CASES)
def test_a_field_is_honoured_or_refused_by_name(raw: httpx.Client, model: str, field: str) -> None:
    if field in REFUSED[model]:
        for is_stream in (False, True):
            body = {"model": model, "messages": MESSAGES, "stream": is_stream, **FIELDS[field]}
            answer = raw.post("/chat/completions", json=body)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"], error["type"]) == (400, field, "invalid_request_error")
            assert field in error["message"]
        return
    whole, chunks = ask(raw, model, **FIELDS[field]), stream(raw, model, **FIELDS[field])
    message = whole.choices[0].message
    assert text_of(chunks) == (message.content or "")
    if field == "n":
        assert [choice.index for choice in whole.choices] == [0, 1]
        assert text_of(chunks, index=1) == whole.choices[1].message.content
    elif field == "logprobs":
        logprobs = whole.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content
    elif field == "response_format":
        assert json.loads(message.content or "").keys() == {"city"}
    elif field == "stop":
        assert "the" not in (message.content or "")


@pytest.mark.parametrize("model", MODELS)
def test_parallel_tool_calls_are_the_same_in_a_stream(raw: httpx.Client, model: str) -> None:
    asked = ask(raw, model, **FIELDS["tools"]).choices[0].message.tool_calls or []
    chunks = stream(raw, model, **FIELDS["tools"])
    pieces = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    for number, call in enumerate(asked):
        assert call.type == "function"
        own = [piece for piece in pieces if piece.index == number and piece.function]
        arguments = "".join(piece.function.arguments or "" for piece in own if piece.function)
        assert json.loads(arguments) == json.loads(call.function.arguments) == {"city": "word"}
        assert own[0].id == call.id
        assert own[0].function is not None
        assert own[0].function.name == call.function.name == ("weather", "news")[number]
    assert len(asked) == 2
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "tool_calls"


@pytest.mark.parametrize(
    ("number", "field"), [(MODELS.index(model), field) for model in MODELS for field in REFUSED[model]]
)
def test_a_field_may_be_dropped_where_the_alias_says_so(
    raw: httpx.Client, simulator: Simulator, number: int, field: str
) -> None:
    assert ask(raw, f"lax-{number}", **FIELDS[field]).choices[0].message.content
    assert field not in simulator.seen[-1].fields


def test_what_was_dropped_is_told(client: openai.OpenAI) -> None:
    number = MODELS.index(CLAUDE)
    for is_stream in (False, True):
        answer = client.chat.completions.with_raw_response.create(
            model=f"lax-{number}", messages=MESSAGES, stream=is_stream, seed=7, n=2, temperature=0.3
        )
        assert set(answer.headers["x-mlaas-dropped"].split(", ")) == {"n", "seed"}
        answer.http_response.close()
    whole = client.chat.completions.with_raw_response.create(model=CLAUDE, messages=MESSAGES)
    assert "x-mlaas-dropped" not in whole.headers


@pytest.mark.parametrize("model", MODELS)
def test_a_loop_of_parallel_tool_calls_comes_to_its_end(client: openai.OpenAI, model: str) -> None:
    tools: Any = FIELDS["tools"]["tools"]
    history: list[Any] = [{"role": "user", "content": "Weather and news?"}]
    message = client.chat.completions.create(model=model, messages=history, tools=tools).choices[0].message
    calls = message.tool_calls or []
    assert len(calls) == 2
    history += [message, *({"role": "tool", "tool_call_id": call.id, "content": "fine"} for call in calls)]
    answer = client.chat.completions.create(model=model, messages=history, tools=tools).choices[0]
    assert answer.finish_reason == "stop"
    assert answer.message.content
    with client.chat.completions.stream(model=model, messages=history, tools=tools) as events:
        assert events.get_final_completion().choices[0].message.content == answer.message.content


@pytest.mark.parametrize("model", MODELS)
async def test_the_async_sdk(gateway: Gateway, client: openai.OpenAI, model: str) -> None:
    messages: Any = MESSAGES
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as sdk:
        whole = await sdk.chat.completions.create(model=model, messages=messages)
        async with sdk.chat.completions.stream(model=model, messages=messages) as events:
            final = await events.get_final_completion()
    assert whole.choices[0].message.content == final.choices[0].message.content != ""


@pytest.mark.parametrize("model", [GPT, THINKING_GPT, CLAUDE, GEMINI, GROK, SONAR])
def test_every_vendors_answer_has_its_price(client: openai.OpenAI, model: str) -> None:
    messages: Any = MESSAGES
    answer = client.chat.completions.with_raw_response.create(model=model, messages=messages)
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=model, messages=messages, stream=True, stream_options=options))
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.to_dict()["cost_usd"] == float(answer.headers["x-mlaas-cost-usd"]) > 0


@pytest.mark.parametrize("model", [GPT, GEMINI, LOCAL, HOUSE])
def test_embeddings(raw: httpx.Client, client: openai.OpenAI, model: str) -> None:
    body = {"model": model, "input": ["one", "two"], "encoding_format": "float"}
    answer = raw.post("/embeddings", json=body)
    found = CreateEmbeddingResponse.model_validate_json(answer.content, strict=True)
    assert [each.index for each in found.data] == [0, 1]
    packed = client.embeddings.create(model=model, input=["one", "two"]).data  # base64 on the wire
    assert [len(each.embedding) for each in packed] == [len(each.embedding) for each in found.data]
    raw_packed = raw.post("/embeddings", json={**body, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert len(base64.b64decode(raw_packed)) == 4 * len(found.data[0].embedding)


@pytest.mark.parametrize("model", MODELS)
def test_completions(raw: httpx.Client, client: openai.OpenAI, model: str) -> None:
    answer = raw.post("/completions", json={"model": model, "prompt": PROMPT})
    whole = Completion.model_validate_json(answer.content, strict=True)
    assert whole.choices[0].text == simulated_answer(PROMPT).text
    chunks = client.completions.create(model=model, prompt=PROMPT, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text


def test_models_are_the_sdks_own(raw: httpx.Client) -> None:
    for each in raw.get("/models").json()["data"]:
        Model.model_validate(each, strict=True)
