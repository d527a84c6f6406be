"""The simulator: what it answers, in the types of the vendors' own SDKs."""

from __future__ import annotations

import signal
import subprocess
import sys

import anthropic
import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.simulated.directive import DEFAULTS, RANDOM_FAULTS, parse_directive
from mlaas.providers.simulated.embeddings_wire import embed
from mlaas.providers.simulated.script import Prompt, sample, write_script
from tests.fakes.serving import simulating
from tests.waiting import wait_until

MESSAGES = [{"role": "user", "content": "Write a sum."}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture(scope="module")
def simulated():
    with simulating() as running:
        yield running


@given(st.lists(st.text(), min_size=1, max_size=4), st.integers(0, 9), st.integers(1, 40), st.booleans())
def test_an_answer_depends_on_seed_and_prompt_alone_and_its_usage_adds_up(texts, seed, max_tokens, is_reasoning):
    prompt = Prompt(texts=texts, tools={}, max_tokens=max_tokens, is_reasoning=is_reasoning)
    options = parse_directive("m@cached=3,written=2", {})[1]
    script = write_script(prompt, options, seed=seed)
    assert script == write_script(prompt, options, seed=seed)
    assert script.output_tokens == len(script.pieces) + len(script.reasoning)
    assert script.cache_read_tokens + script.cache_write_tokens <= script.input_tokens
    assert script.finish == ("length" if max_tokens < DEFAULTS.tokens else "stop")
    assert script.id != write_script(prompt, options, seed=seed + 1).id


def test_a_stop_text_ends_the_answer_before_it():
    whole = write_script(Prompt(texts=["x"], tools={}), DEFAULTS, seed=0)
    stop = whole.pieces[3]
    ended = write_script(Prompt(texts=["x"], tools={}, stop=[stop]), DEFAULTS, seed=0)
    assert ended.text == whole.text[: whole.text.index(stop)]
    assert ended.finish == "stop"


@pytest.mark.parametrize(
    ("model", "headers", "fault", "changed"),
    [
        ("m", {}, "", {}),
        ("sim-429@after=2,form=ms", {}, "429", {"after": 2.0, "form": "ms"}),
        ("gpt-5@tokens=500,rate=50", {}, "", {"tokens": 500, "rate": 50.0}),
        ("gpt-5@tokens:500+rate:50", {}, "", {"tokens": 500, "rate": 50.0}),
        ("sim-stall", {"x-sim-fault": "short", "x-sim-options": "stall=1"}, "short", {"stall": 1.0}),
    ],
)
def test_a_request_says_what_it_wants(model, headers, fault, changed):
    found, options = parse_directive(model, headers)
    assert found == fault
    assert {name: getattr(options, name) for name in changed} == changed


@pytest.mark.parametrize("model", ["sim-typo", "sim-200", "m@typo=1", "m@tokens=x", "sim-"])
def test_a_wish_that_is_none_is_refused(model):
    if model == "sim-":
        assert parse_directive(model, {})[0] == ""
        return
    with pytest.raises(ValueError, match=r"typo|200|tokens|literal"):
        parse_directive(model, {})


def test_a_schema_is_kept_to():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"]},
            "b": {"type": "array", "items": {"type": "number"}},
            "c": {"enum": ["x", "y"]},
            "d": {"const": 3},
            "e": {"type": "object", "properties": {"f": {"type": "boolean"}}},
            "g": {"type": "null"},
        },
    }
    assert sample(schema) == {"a": "word", "b": [1.5], "c": "x", "d": 3, "e": {"f": True}, "g": None}


def test_texts_that_share_words_lie_close():
    one, near, far = (
        embed(text, dimensions=64) for text in ("what is a cat", "what is the cat", "tomorrow rains fish")
    )
    assert sum(a * b for a, b in zip(one, one, strict=True)) == pytest.approx(1)
    assert sum(a * b for a, b in zip(one, near, strict=True)) > sum(a * b for a, b in zip(one, far, strict=True))


@pytest.mark.parametrize("base", ["/v1", "/openai/v1", "/gemini/v1beta/openai", "/xai/v1", "/vllm/v1", "/perplexity"])
def test_openais_sdk_reads_chats(simulated, base):
    sdk = openai.OpenAI(base_url=simulated[0] + base, api_key="x", max_retries=0)
    whole = sdk.chat.completions.create(model="m", messages=MESSAGES)
    chunks = list(sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert whole.usage is not None
    assert whole.usage.completion_tokens == DEFAULTS.tokens


def test_openais_sdk_reads_responses_and_their_events(simulated):
    sdk = openai.OpenAI(base_url=simulated[0] + "/openai/v1", api_key="x", max_retries=0)
    tools = [{"type": "function", "name": name, "parameters": PARAMETERS, "strict": True} for name in ("a", "b")]
    whole = sdk.responses.create(model="m", input="x", reasoning={"effort": "low"})
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    with sdk.responses.stream(model="m", input="x", tools=tools) as stream:
        final = stream.get_final_response()
    assert [item.name for item in final.output] == ["a", "b"]


def test_anthropics_sdk_reads_messages_and_their_events(simulated):
    sdk = anthropic.Anthropic(base_url=simulated[0] + "/anthropic", api_key="x", max_retries=0)
    asked = {"model": "m", "max_tokens": 50, "messages": MESSAGES, "thinking": {"type": "adaptive"}}
    whole = sdk.messages.create(**asked)
    with sdk.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert [block.model_dump() for block in final.content] == [block.model_dump() for block in whole.content]
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert sdk.messages.count_tokens(model="m", messages=MESSAGES).input_tokens == whole.usage.input_tokens


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/openai/v1/chat/completions", {"model": "gpt-5", "max_tokens": 5}, "max_tokens"),
        ("/openai/v1/chat/completions", {"model": "gpt-5", "temperature": 0.2}, "temperature"),
        (
            "/openai/v1/chat/completions",
            {"model": "m", "messages": [{"role": "user", "thinking_blocks": []}]},
            "messages",
        ),
        ("/perplexity/v1/agent", {"model": "m", "input": "x", "temperature": 1}, "temperature"),
        ("/v1/chat/completions", {"model": "m", "messages": []}, "messages"),
        ("/v1/embeddings", {"model": "m", "input": []}, "input"),
    ],
)
def test_vendors_refuse_what_they_really_refuse(simulated, path, body, param):
    answer = httpx.post(simulated[0] + path, json=body if "input" in body else {"messages": MESSAGES, **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(param)


def test_random_faults_come_at_their_rate_and_by_the_seed():
    def statuses(seed: int) -> list[int]:
        with simulating(seed=seed, fault_rate=0.3) as (url, simulator), httpx.Client() as client:
            seen = []
            for _ in range(60):
                try:
                    answer = client.post(f"{url}/v1/chat/completions", json={"model": "m", "messages": MESSAGES})
                    seen.append(answer.status_code)
                except httpx.TransportError:
                    seen.append(0)
            assert sum(simulator.faults.values()) in range(8, 30)
            assert set(simulator.faults) <= set(RANDOM_FAULTS)
            return seen

    assert statuses(1) == statuses(1) != statuses(2)


def test_the_pace_is_kept(simulated):
    body = {"model": "m@tokens=10,rate=100,latency=0.05", "messages": MESSAGES, "stream": True}
    with httpx.stream("POST", f"{simulated[0]}/v1/chat/completions", json=body) as response:
        response.read()
    assert response.elapsed.total_seconds() >= 0.05 + 10 / 100


def test_it_runs_as_a_process_of_its_own():
    command = [sys.executable, "-m", "mlaas.providers.simulated", "--options", "tokens=3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            answer = httpx.post(f"{url}/v1/chat/completions", json={"model": "m", "messages": MESSAGES})
            assert answer.json()["usage"]["completion_tokens"] == 3
            told = httpx.get(f"{url}/simulator").json()
            assert told == {"requests": 1, "active": 0, "cancelled": 0, "faults": {}}
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: process.poll() is not None, what="the simulator to stop", timeout_s=10)
        finally:
            process.kill()
    assert process.returncode == 0
