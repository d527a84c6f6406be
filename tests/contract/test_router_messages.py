"""Anthropic's API in front of every kind of provider: each answer and each event is strictly one of the SDK's types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pydantic
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent

from mlaas.router.types import LocalEndpoint
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulated_answer, simulating
from tests.fakes.vendors import vendors
from tests.waiting import wait_until

MODELS = [
    "openai/gpt-4o",
    "anthropic/claude-sonnet-5",
    "gemini/gemini-3.8-flash",
    "perplexity/perplexity/sonar",
    "xai/grok-4.7",
    "house/m",
    "local/tiny",
]
EVENTS: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(RawMessageStreamEvent)
PROMPT = "Write a sum."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
BODIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tools": {"tools": [{"name": name, "input_schema": SCHEMA} for name in ("weather", "news")]},
    "cut": {"max_tokens": 3},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with simulating() as (url, _):
        endpoint = LocalEndpoint(model="tiny", url=f"{url}/vllm")
        with running_gateway(folder, vendors(url), endpoints=[endpoint], deployed=["tiny"]) as running:
            yield running


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{gateway.url}/v1", headers={"x-api-key": gateway.key}, timeout=20) as http:
        wait_until(lambda: "tiny" in http.get("/models").text, what="the local model", timeout_s=10)
        yield http


def ask(client: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": PROMPT}], **fields}
    answer = client.post("/messages", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mlaas-provider"] == model.partition("/")[0]
    return answer


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("case", BODIES)
def test_answers_and_events_are_the_sdks_own(client: httpx.Client, model: str, case: str) -> None:
    whole = Message.model_validate_json(ask(client, model, **BODIES[case]).content, strict=True)
    streamed = ask(client, model, stream=True, **BODIES[case]).text
    lines = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: ")]
    events = [EVENTS.validate_json(line, strict=True) for line in lines if json.loads(line)["type"] != "ping"]
    assert [events[0].type, events[-2].type, events[-1].type] == ["message_start", "message_delta", "message_stop"]
    assert events[-2].delta.stop_reason == whole.stop_reason
    assert events[-2].usage.output_tokens == whole.usage.output_tokens
    assert whole.stop_reason == {"plain": "end_turn", "tools": "tool_use", "cut": "max_tokens"}[case]
    starts = [event.content_block.type for event in events if event.type == "content_block_start"]
    assert starts == [block.type for block in whole.content]
    text = "".join(
        event.delta.text for event in events if event.type == "content_block_delta" and event.delta.type == "text_delta"
    )
    assert text == "".join(block.text for block in whole.content if block.type == "text")
    if case == "plain":
        assert text == simulated_answer(PROMPT).text


@pytest.mark.parametrize("model", MODELS)
def test_tokens_are_counted_for_every_model(client: httpx.Client, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    answer = client.post("/messages/count_tokens", json=body)
    assert MessageTokensCount.model_validate_json(answer.content, strict=True).input_tokens > 0
