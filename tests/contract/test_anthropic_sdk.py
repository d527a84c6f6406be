"""The official `anthropic` SDK against the gateway, in front of every kind of provider."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
import httpx
import pytest

from mlaas.providers.simulated.server import Simulator
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating

MODELS = [
    "anthropic/claude-sonnet-5",
    "openai/gpt-4o",
    "gemini/gemini-3.8-flash",
    "xai/grok-4.7",
    "house/m",
]
MESSAGES: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Write a sum."}]
TOOLS: list[anthropic.types.ToolParam] = [
    {
        "name": name,
        "description": "x",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    for name in ("weather", "news")
]
IMAGE: anthropic.types.ImageBlockParam = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
}


@pytest.fixture(scope="module")
def simulated() -> Iterator[tuple[str, Simulator]]:
    with simulating() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(simulated, tmp_path_factory) -> Iterator[Gateway]:
    url = simulated[0]
    config = f"""
providers:
  anthropic: {{base_url: "{url}/anthropic/v1", api_key: sk-upstream}}
  openai: {{base_url: "{url}/openai/v1", api_key: sk-upstream}}
  gemini: {{base_url: "{url}/gemini/v1beta/openai", api_key: sk-upstream}}
  perplexity: {{base_url: "{url}/perplexity/v1", api_key: sk-upstream}}
  xai: {{base_url: "{url}/xai/v1", api_key: sk-upstream}}
  house: {{kind: openai_compatible, base_url: "{url}/v1", api_key: sk-upstream}}
models:
  claude: {{targets: [anthropic/sim-529, anthropic/claude-opus-5-5, house/m]}}
  opus: {{targets: [anthropic/claude-opus-5-5]}}
  sonnet: {{targets: [anthropic/claude-sonnet-5]}}
  mixed: {{targets: [anthropic/sim-error-first, house/m]}}
"""
    with running_gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def simulator(simulated) -> Simulator:
    simulated[1].seen.clear()
    return simulated[1]


@pytest.fixture(scope="module")
def client(gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as sdk:
        yield sdk


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.parametrize("model", [*MODELS, "perplexity/perplexity/sonar"])
def test_every_provider_answers_whole_and_streamed_alike(client, model):
    raw = client.messages.with_raw_response.create(model=model, max_tokens=100, system="Be brief.", messages=MESSAGES)
    message = raw.parse()
    assert text_of(message)
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert raw.headers["x-mlaas-provider"] == model.partition("/")[0]
    with client.messages.stream(model=model, max_tokens=100, system="Be brief.", messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(final) == text_of(message)
    assert final.stop_reason == "end_turn"
    for usage in (message.usage, final.usage):
        assert usage.input_tokens > 0
        assert usage.output_tokens == 16


@pytest.mark.parametrize("model", MODELS)
def test_a_loop_of_parallel_tool_calls_comes_to_its_end(client, model):
    question: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Weather and news?"}]
    choice: anthropic.types.ToolChoiceAnyParam = {"type": "any"}
    for is_streamed in (False, True):
        asked = {"model": model, "max_tokens": 500, "tools": TOOLS, "tool_choice": choice, "messages": question}
        if is_streamed:
            with client.messages.stream(**asked) as stream:
                message = stream.get_final_message()
        else:
            message = client.messages.create(**asked)
        uses = [block for block in message.content if block.type == "tool_use"]
        assert message.stop_reason == "tool_use"
        assert {use.name for use in uses} == {"weather", "news"}
        assert all(isinstance(use.input["city"], str) for use in uses)
        results = [{"type": "tool_result", "tool_use_id": use.id, "content": "fine"} for use in uses]
        history = [*question, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
        answer = client.messages.create(model=model, max_tokens=500, tools=TOOLS, messages=history)
        assert text_of(answer)


def test_one_tool_call_when_parallel_ones_are_not_wanted(client):
    choice: anthropic.types.ToolChoiceAnyParam = {"type": "any", "disable_parallel_tool_use": True}
    message = client.messages.create(
        model="house/m", max_tokens=500, tools=TOOLS, tool_choice=choice, messages=MESSAGES
    )
    assert [block.type for block in message.content].count("tool_use") == 1


@pytest.mark.parametrize("model", ["openai/gpt-4o", "house/m"])
def test_images_and_schemas_reach_another_api(client, simulator, model):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "additionalProperties": False}
    message = client.messages.create(
        model=model,
        max_tokens=100,
        messages=[{"role": "user", "content": [IMAGE, {"type": "text", "text": "See?"}]}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert isinstance(json.loads(text_of(message))["ok"], bool)
    sent = simulator.seen[-1].fields
    assert sent["messages"][0]["content"][0]["image_url"]["url"] == "data:image/png;base64,aGk="
    assert sent["response_format"]["json_schema"]["schema"] == schema


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-5", "xai/grok-4.7"])
def test_the_cost_is_told_in_a_header_or_in_the_last_usage(client, model):
    raw = client.messages.with_raw_response.create(model=model, max_tokens=100, messages=MESSAGES)
    cost_usd = float(raw.headers["x-mlaas-cost-usd"])
    assert cost_usd > 0
    with client.messages.stream(model=model, max_tokens=100, messages=MESSAGES) as stream:
        deltas = [event for event in stream if event.type == "message_delta"]
    assert [delta.usage.to_dict()["cost_usd"] for delta in deltas] == [cost_usd]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_thinking_goes_back_to_the_model_that_thought_it_and_to_no_other(client, simulator, is_streamed):
    """The simulated Anthropic refuses a thinking block whose signature is not its own."""
    history: list[anthropic.types.MessageParam] = [*MESSAGES]
    for number, model in enumerate(("house/m", "opus", "anthropic/claude-sonnet-5", "sonnet", "house/m", "opus")):
        asked = {"model": model, "max_tokens": 2000, "messages": history, "output_config": {"effort": "low"}}
        if is_streamed:
            with client.messages.stream(**asked) as stream:
                message = stream.get_final_message()
        else:
            message = client.messages.create(**asked)
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.content[0].thinking
        history += [{"role": "assistant", "content": message.content}, {"role": "user", "content": f"And {number}?"}]
    # Of its own name the third answer was asked, so its block is native and goes wherever the caller sends it.
    kept = [len(each["content"]) for each in simulator.seen[-1].fields["messages"] if each["role"] == "assistant"]
    assert kept == [1, 2, 2, 1, 1]


def test_only_model_and_key_change_on_the_way_to_anthropic(gateway, simulator):
    body = b'{ "max_tokens": 9,"future" : [1.50], "messages":[{"role":"user","content":"\\u00e9"}], "model":"claude" }'
    headers = {"x-api-key": gateway.key, "anthropic-version": "2023-06-01", "anthropic-beta": "one,two"}
    answer = httpx.post(f"{gateway.url}/v1/messages", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    sent = simulator.seen[-1]
    assert sent.body == body.replace(b'"claude"', b'"claude-opus-5-5"')
    assert (sent.headers["x-api-key"], sent.headers["anthropic-beta"]) == ("sk-upstream", "one,two")


async def test_the_async_sdk_streams_and_counts(gateway):
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as sdk:
        for model in ("anthropic/claude-sonnet-5", "house/m"):
            async with sdk.messages.stream(model=model, max_tokens=100, messages=MESSAGES) as stream:
                kinds = [event.type async for event in stream]
            assert kinds[0] == "message_start"
            assert kinds[-1] == "message_stop"
            count = await sdk.messages.count_tokens(model=model, messages=MESSAGES, tools=TOOLS)
            assert count.input_tokens > 0


def test_the_bearer_token_is_a_key_as_well(gateway):
    with anthropic.Anthropic(base_url=gateway.url, auth_token=gateway.key, api_key=None, max_retries=0) as sdk:
        assert text_of(sdk.messages.create(model="house/m", max_tokens=100, messages=MESSAGES))


def test_an_error_at_the_head_of_a_stream_falls_over_to_another_target(client):
    with client.messages.stream(model="mixed", max_tokens=100, messages=MESSAGES) as stream:
        assert text_of(stream.get_final_message())


@pytest.mark.parametrize(
    ("model", "error", "kind"),
    [
        ("anthropic/sim-429", anthropic.RateLimitError, "rate_limit_error"),
        ("house/sim-429", anthropic.RateLimitError, "rate_limit_error"),
        ("anthropic/sim-529", anthropic.InternalServerError, "overloaded_error"),
        ("house/sim-503", anthropic.InternalServerError, "overloaded_error"),
        ("house/sim-400", anthropic.BadRequestError, "invalid_request_error"),
        ("house/sim-malformed", anthropic.InternalServerError, "api_error"),
        ("nowhere", anthropic.NotFoundError, "not_found_error"),
    ],
)
def test_errors_are_the_sdks_own(client, model, error, kind):
    with pytest.raises(error) as caught:
        client.messages.create(model=model, max_tokens=100, messages=MESSAGES)
    assert caught.value.type == kind
    assert caught.value.error_code


@pytest.mark.parametrize(
    "model", ["anthropic/sim-error", "anthropic/sim-truncated", "house/sim-error", "house/sim-short"]
)
def test_a_stream_that_breaks_raises(client, model):
    manager = client.messages.stream(model=model, max_tokens=100, messages=MESSAGES)
    with manager as stream, pytest.raises(anthropic.APIStatusError) as caught:
        stream.get_final_message()
    assert caught.value.type in ("overloaded_error", "api_error")


def test_what_the_target_cannot_honour_is_named(client):
    with pytest.raises(anthropic.BadRequestError, match="'container'"):
        client.messages.create(model="house/m", max_tokens=9, messages=MESSAGES, container="c")
    tool: anthropic.types.WebSearchTool20250305Param = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match="tools"):
        client.messages.create(model="house/m", max_tokens=9, messages=MESSAGES, tools=[tool])
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.post("/v1/messages", body={"model": "house/m", "messages": MESSAGES}, cast_to=object)


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        ("openai/gpt-5-mini", {"stop_sequences": ["END"]}, "stop_sequences"),
        ("openai/gpt-4o", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ("openai/gpt-4o", {"output_config": {"effort": "low"}}, "output_config.effort"),
    ],
)
def test_what_the_target_cannot_honour_has_the_callers_own_name(client, model, fields, param):
    with pytest.raises(anthropic.BadRequestError, match=f"'{param}'") as caught:
        client.messages.create(model=model, max_tokens=2000, messages=MESSAGES, **fields)
    assert caught.value.body["error"]["details"]["param"] == param


def test_a_wrong_key_is_an_authentication_error(gateway):
    wrong = anthropic.Anthropic(base_url=gateway.url, api_key="sk-wrong", max_retries=0)
    with wrong as sdk, pytest.raises(anthropic.AuthenticationError) as caught:
        sdk.messages.create(model="house/m", max_tokens=9, messages=MESSAGES)
    assert caught.value.type == "authentication_error"
