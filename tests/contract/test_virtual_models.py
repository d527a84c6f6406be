"""Virtual models and caches through the gateway, with both SDKs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulated_answer, simulating

PROMPT = "Write a sum."
TEXT = simulated_answer(PROMPT).text
MESSAGES: list[Any] = [{"role": "user", "content": PROMPT}]
CONFIG = """
providers:
  house: {{kind: openai_compatible, base_url: "{url}/v1", api_key: x}}
  claude: {{kind: anthropic, base_url: "{url}/anthropic/v1", api_key: x}}
prices:
  house/m: {{input_usd_per_mtok: 1000, output_usd_per_mtok: 1000}}
  claude/m: {{input_usd_per_mtok: 1000, output_usd_per_mtok: 1000}}
models:
  kept: {{targets: [house/m], cache: {{ttl_s: 60}}}}
  alike: {{targets: [house/m], cache: {{ttl_s: 60, semantic: {{model: house/embed, threshold: 0.9}}}}}}
  careful: {{cascade: {{steps: [house/m, claude/m], check: {{min_chars: 100000}}}}}}
  lucky: {{cascade: {{steps: [house/sim-500, claude/m], check: {{min_chars: 1}}}}}}
  votes: {{ensemble: {{models: [house/m, claude/m, house/sim-500], quorum: 2}}}}
  nested: {{pipeline: {{steps: [{{model: careful}}, {{model: house/m, template: "Shorten: {{previous}}"}}]}}}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with simulating() as (url, _), running_gateway(folder, CONFIG.format(url=url)) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def raw(gateway: Gateway) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {gateway.key}"}
    with httpx.Client(base_url=f"{gateway.url}/v1", headers=headers, timeout=10) as client:
        yield client


@pytest.mark.parametrize(
    ("model", "reason", "num_asks"),
    [
        ("careful", "cascade: house/m failed check min_chars -> claude/m", 2),
        ("votes", "majority: 2 of 3 answered; 2 agree with house/m", 2),
        ("nested", "pipeline: careful -> house/m", 3),
    ],
)
def test_a_virtual_model_tells_its_path_and_costs_all_of_it(client, model: str, reason: str, num_asks: int) -> None:
    answer = client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES)
    whole = answer.parse()
    assert answer.headers["x-mlaas-route-reason"] == reason
    assert whole.model == model
    assert whole.choices[0].message.content
    assert float(answer.headers["x-mlaas-cost-usd"]) == pytest.approx(whole.usage.total_tokens / 1000)
    one = client.chat.completions.create(model="house/m", messages=MESSAGES).usage
    assert whole.usage.completion_tokens >= one.completion_tokens * num_asks


def test_a_step_that_fails_is_passed_over(client) -> None:
    answer = client.chat.completions.with_raw_response.create(model="lucky", messages=MESSAGES)
    assert answer.headers["x-mlaas-route-reason"].startswith("cascade: house/sim-500 failed: ")
    assert answer.parse().choices[0].message.content == TEXT


def test_a_virtual_model_streams_to_openai_s_sdk(client) -> None:
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(model="careful", messages=MESSAGES, stream=True, stream_options=options)
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    usage = chunks[-1].usage
    assert usage.cost_usd == pytest.approx(usage.total_tokens / 1000)


def test_a_virtual_model_answers_anthropic_s_sdk(gateway) -> None:
    with anthropic.Anthropic(base_url=gateway.url, auth_token=gateway.key, api_key=None, max_retries=0) as client:
        request: Any = {"model": "careful", "messages": MESSAGES, "max_tokens": 100}
        assert client.messages.create(**request).content[0].text == TEXT
        with client.messages.stream(**request) as stream:
            assert stream.get_final_text() == TEXT


def test_several_answers_are_refused_by_name(client) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="careful", messages=MESSAGES, n=2)
    assert refused.value.param == "n"


def ask(raw: httpx.Client, *, cache: str | None = None, **fields: Any) -> httpx.Response:
    body = {"model": "kept", "messages": MESSAGES, **fields}
    headers = {"x-mlaas-cache": cache} if cache else {}
    return raw.post("/chat/completions", json=body, headers=headers)


def test_the_same_request_is_answered_once_and_costs_nothing_after(raw) -> None:
    first, second = ask(raw), ask(raw, user="somebody else")
    assert [each.headers["x-mlaas-cache"] for each in (first, second)] == ["miss", "hit"]
    assert second.json() == first.json()
    assert float(first.headers["x-mlaas-cost-usd"]) > 0
    assert float(second.headers["x-mlaas-cost-usd"]) == 0
    assert ask(raw, temperature=0.5).headers["x-mlaas-cache"] == "miss"
    for word in ("bypass", "no-store"):
        passed = ask(raw, cache=word)
        assert passed.headers["x-mlaas-cache"] == "bypass"
        assert float(passed.headers["x-mlaas-cost-usd"]) > 0


def test_streams_and_whole_answers_share_the_cache(client, raw) -> None:
    options: Any = {"include_usage": True}
    request: Any = {"model": "kept", "messages": MESSAGES, "seed": 1, "stream": True, "stream_options": options}
    first = list(client.chat.completions.create(**request))
    whole = ask(raw, seed=1)
    assert whole.headers["x-mlaas-cache"] == "hit"
    assert whole.json()["choices"][0]["message"]["content"] == TEXT
    assert whole.json()["id"] == first[0].id
    again = list(client.chat.completions.create(**request))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in again if chunk.choices) == TEXT
    assert again[-1].usage.cost_usd == 0
    assert again[-1].usage.total_tokens == first[-1].usage.total_tokens


def test_a_request_that_means_the_same_is_answered_from_the_cache(raw) -> None:
    def ask_alike(text: str) -> httpx.Response:
        return raw.post("/chat/completions", json={"model": "alike", "messages": [{"role": "user", "content": text}]})

    first, same, close, other = map(ask_alike, ("Write a sum.", "Write a sum.", "a sum. Write", "Sing a song"))
    states = [each.headers["x-mlaas-cache"] for each in (first, same, close, other)]
    assert states == ["miss", "hit", "semantic", "miss"]
    assert close.json() == first.json()
    assert close.headers["x-mlaas-route-reason"] == "answered from the cache: similarity 1.000"
    assert float(close.headers["x-mlaas-cost-usd"]) == 0
