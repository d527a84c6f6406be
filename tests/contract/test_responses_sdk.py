"""The official `openai` SDK's Responses API against the gateway, in front of every kind of provider."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pydantic
import pytest
from openai.types.responses import FunctionToolParam, Response, ResponseItem, ResponseStreamEvent

from mlaas.auth.keys import create_key
from mlaas.providers.simulated.server import Simulator
from mlaas.router.types import LocalEndpoint
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating
from tests.waiting import wait_until

NATIVE = ["openai/gpt-6-sol", "xai/grok-4.7", "perplexity/perplexity/sonar"]
TRANSLATED = ["anthropic/claude-sonnet-5", "gemini/gemini-3.8-flash", "house/m", "local/tiny"]
MODELS = [*NATIVE, *TRANSLATED]
EVENTS = pydantic.TypeAdapter(ResponseStreamEvent)
ITEMS = pydantic.TypeAdapter(ResponseItem)
TOOLS: list[FunctionToolParam] = [
    {
        "type": "function",
        "name": name,
        "description": "x",
        "strict": None,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    for name in ("weather", "news")
]


class City(pydantic.BaseModel):
    name: str
    country: str


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
  second: {{targets: [openai/sim-error-first, house/m]}}
"""
    endpoints = [LocalEndpoint(model="tiny", url=url)]
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, config, endpoints=endpoints, deployed=["tiny"]) as running:
        yield running


@pytest.fixture
def simulator(simulated) -> Simulator:
    simulated[1].seen.clear()
    return simulated[1]


@pytest.fixture(scope="module")
def client(gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as sdk:
        yield sdk


def checked(response: Response) -> Response:
    """Return the response, once its own types have agreed to it."""
    return Response.model_validate_json(response.model_dump_json(exclude_unset=True), strict=True)


@pytest.mark.parametrize("model", MODELS)
def test_every_provider_answers_whole_and_streamed_alike(client, model):
    raw = client.responses.with_raw_response.create(model=model, instructions="Be brief.", input="Write a sum.")
    whole = checked(raw.parse())
    assert raw.headers["x-mlaas-provider"] == model.partition("/")[0]
    assert (whole.status, whole.instructions) == ("completed", "Be brief.")
    assert whole.output_text
    assert whole.usage is not None
    assert whole.usage.output_tokens > 0
    with client.responses.stream(model=model, instructions="Be brief.", input="Write a sum.") as stream:
        events = list(stream)
        final = stream.get_final_response()
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == final.output_text == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.usage is not None
    assert final.usage.output_tokens == whole.usage.output_tokens


@pytest.mark.parametrize("model", MODELS)
def test_every_event_is_one_of_the_sdks_own_types(gateway, model):
    body = {"model": model, "input": "Write a sum.", "stream": True}
    headers = {"authorization": f"Bearer {gateway.key}"}
    text = httpx.post(f"{gateway.url}/v1/responses", json=body, headers=headers).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    for line in lines:
        EVENTS.validate_json(line, strict=True)
    assert json.loads(lines[0])["type"] == "response.created"
    assert json.loads(lines[-1])["type"] == "response.completed"


@pytest.mark.parametrize("model", MODELS)
async def test_the_async_client(gateway, model):
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        whole = await client.responses.create(model=model, input="Write a sum.")
        async with client.responses.stream(model=model, input="Write a sum.") as stream:
            final = await stream.get_final_response()
        assert final.output_text == whole.output_text != ""
        again = await client.responses.retrieve(whole.id)
        assert again.output_text == whole.output_text


@pytest.mark.parametrize("model", MODELS)
def test_a_tool_loop_goes_through(client, model):
    asked = client.responses.create(model=model, input="Weather and news?", tools=TOOLS)
    calls = [item for item in checked(asked).output if item.type == "function_call"]
    assert calls
    assert all(json.loads(call.arguments).keys() == {"city"} for call in calls)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "fine"} for call in calls]
    by_hand = client.responses.create(
        model=model,
        input=[{"role": "user", "content": "Weather and news?"}, *asked.output, *results],  # type: ignore[list-item]
        tools=TOOLS,
        store=False,
    )
    by_id = client.responses.create(model=model, previous_response_id=asked.id, input=results, tools=TOOLS)
    assert by_hand.output_text
    assert by_id.output_text
    assert by_id.previous_response_id == asked.id


@pytest.mark.parametrize("model", MODELS)
def test_streamed_tool_calls(client, model):
    with client.responses.stream(model=model, input="Weather and news?", tools=TOOLS) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert {"response.output_item.added", "response.output_item.done", "response.completed"} <= kinds
    assert [item.type for item in final.output if item.type == "function_call"]


@pytest.mark.parametrize("model", MODELS)
def test_structured_output_is_parsed(client, model):
    city = client.responses.parse(model=model, input="A city.", text_format=City).output_parsed
    assert isinstance(city, City)


def test_a_conversation_goes_on_over_all_providers(client):
    previous = client.responses.create(model=MODELS[0], input="Turn 0.")
    for number, model in enumerate([*MODELS[1:], MODELS[0]], start=1):
        answer = client.responses.create(model=model, input=f"Turn {number}.", previous_response_id=previous.id)
        assert answer.previous_response_id == previous.id
        assert answer.output_text
        assert answer.usage.input_tokens > previous.usage.input_tokens
        previous = answer


@pytest.mark.parametrize("is_streamed", [False, True])
def test_signed_thinking_goes_back_to_its_model_and_to_no_other(client, is_streamed):
    """The simulated Anthropic refuses thinking whose signature is not its own, and others refuse any."""
    claude = "anthropic/claude-sonnet-5"
    if is_streamed:
        with client.responses.stream(model=claude, input="Think.", reasoning={"effort": "high"}) as stream:
            first = stream.get_final_response()
    else:
        first = client.responses.create(model=claude, input="Think.", reasoning={"effort": "high"})
    reasoning = checked(first).output[0]
    assert reasoning.type == "reasoning"
    assert reasoning.summary[0].text
    assert reasoning.encrypted_content
    for model in (claude, *MODELS):
        by_id = client.responses.create(model=model, previous_response_id=first.id, input="Again.", store=False)
        items = [{"role": "user", "content": "Think."}, *first.output, {"role": "user", "content": "Again."}]
        by_hand = client.responses.create(model=model, input=items, store=False)  # type: ignore[arg-type]
        assert by_hand.output_text == by_id.output_text != ""


def test_what_is_stored_is_what_was_answered_until_it_is_deleted(client):
    answer = client.responses.create(model="house/m", input="Write a sum.", metadata={"a": "b"})
    again = client.responses.retrieve(answer.id)
    assert again.to_dict() == answer.to_dict()
    client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_what_a_response_was_made_from_is_listed_page_by_page(client):
    first = client.responses.create(model="house/m", instructions="Be brief.", input="Write a sum.")
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "And another?"}]}]
    second = client.responses.create(model="anthropic/claude-sonnet-5", input=asked, previous_response_id=first.id)
    items = list(client.responses.input_items.list(second.id, order="asc", limit=1))
    for item in items:
        ITEMS.validate_python(item.to_dict())
    assert [item.role for item in items] == ["user", "assistant", "user"]
    assert [item.content[0].text for item in items] == ["Write a sum.", first.output_text, "And another?"]
    page = client.responses.input_items.list(second.id, limit=2)
    assert [item.id for item in page.data] == [items[2].id, items[1].id]
    for wrong in ({"limit": 0}, {"order": "up"}, {"after": "msg_of_nobody"}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.input_items.list(second.id, **wrong)
        assert refused.value.param == next(iter(wrong))
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list("resp_of_nobody")


def test_a_streamed_response_is_stored_when_it_ends(client):
    with client.responses.stream(model="anthropic/claude-sonnet-5", input="Write a sum.") as stream:
        final = stream.get_final_response()
    assert client.responses.retrieve(final.id).output_text == final.output_text


@pytest.mark.parametrize("model", MODELS)
def test_a_stored_response_is_streamed_again(client, model):
    answer = client.responses.create(model=model, input=f"Weather and news, {model}?", tools=TOOLS)
    events = list(client.responses.retrieve(answer.id, stream=True))
    for event in events:
        EVENTS.validate_python(event.to_dict())
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output == answer.output
    assert events[-1].response.usage == answer.usage
    assert len(list(client.responses.retrieve(answer.id, stream=True, starting_after=2))) == len(events) - 3
    with client.responses.stream(response_id=answer.id, tools=TOOLS) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == answer.output_text


def test_what_cannot_be_streamed_again_says_why(client):
    begun = client.responses.create(model="house/sim-slow", input="Write a sum.", background=True)
    with pytest.raises(openai.BadRequestError, match="in_progress"):
        client.responses.retrieve(begun.id, stream=True)
    client.responses.cancel(begun.id)
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.responses.retrieve(begun.id, stream=True)


def test_nobody_sees_the_responses_of_another_tenant(client, gateway):
    answer = client.responses.create(model="openai/gpt-6-sol", input="Write a sum.")
    secret, _ = create_key(gateway.keys, name="eve", tenant="eve", role="user")

    def is_known() -> bool:
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.get(f"{gateway.url}/v1/models", headers=headers).status_code == 200

    wait_until(is_known, what="the new key")
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=secret, max_retries=0) as eve:
        with pytest.raises(openai.NotFoundError):
            eve.responses.retrieve(answer.id)
        with pytest.raises(openai.NotFoundError):
            eve.responses.cancel(answer.id)
        with pytest.raises(openai.NotFoundError):
            eve.responses.delete(answer.id)
        with pytest.raises(openai.BadRequestError) as refused:
            eve.responses.create(model="openai/gpt-6-sol", input="x", previous_response_id=answer.id)
    assert refused.value.param == "previous_response_id"
    assert client.responses.retrieve(answer.id).id == answer.id


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"reasoning": {"effort": "minimal"}}, "reasoning.effort"),
    ],
)
def test_what_the_target_cannot_honour_has_the_callers_own_name(client, fields, param):
    with pytest.raises(openai.BadRequestError, match=f"'{param}'") as caught:
        client.responses.create(model="anthropic/claude-sonnet-5", input="Write a sum.", **fields)
    assert caught.value.param == param


@pytest.mark.parametrize("model", MODELS)
def test_a_background_response_is_there_in_the_end(client, model):
    begun = client.responses.create(model=model, input="Write a sum.", background=True)
    assert checked(begun).status == "in_progress"

    def ended() -> Response | None:
        now = client.responses.retrieve(begun.id)
        return None if now.status in ("queued", "in_progress") else now

    wait_until(lambda: ended() is not None, what="the response")
    done = checked(client.responses.retrieve(begun.id))
    assert (done.id, done.status, done.background) == (begun.id, "completed", True)
    assert done.output_text


def test_a_background_response_is_cancelled_and_its_upstream_let_go(client, simulated):
    begun = client.responses.create(model="openai/sim-slow", input="Write a sum.", background=True)
    url = simulated[0]
    wait_until(lambda: httpx.get(f"{url}/simulator").json()["active"] > 0, what="the upstream's request")
    assert client.responses.cancel(begun.id).status == "cancelled"
    wait_until(lambda: httpx.get(f"{url}/simulator").json()["active"] == 0, what="the upstream to be let go")
    assert client.responses.retrieve(begun.id).status == "cancelled"


def test_a_background_response_that_fails_says_why(client):
    begun = client.responses.create(model="openai/sim-400", input="Write a sum.", background=True)
    wait_until(lambda: client.responses.retrieve(begun.id).status == "failed", what="the failure")
    failed = checked(client.responses.retrieve(begun.id))
    assert failed.error is not None
    assert failed.error.code == "invalid_prompt"


def test_a_stream_that_fails_before_its_first_output_is_answered_by_the_next(client):
    with client.responses.stream(model="second", input="Write a sum.") as stream:
        final = stream.get_final_response()
    assert final.output_text


@pytest.mark.parametrize("model", ["openai/sim-error", "xai/sim-truncated", "house/sim-error", "anthropic/sim-short"])
def test_a_stream_that_breaks_raises(client, model):
    with pytest.raises(openai.APIError), client.responses.stream(model=model, input="Write a sum.") as stream:
        stream.get_final_response()


@pytest.mark.parametrize("model", TRANSLATED)
def test_a_tool_that_the_target_cannot_run_is_refused_by_name(client, model):
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=model, input="x", tools=[{"type": "web_search"}])
    assert refused.value.param == "tools[0]"


def test_the_bill_is_told(client):
    raw = client.responses.with_raw_response.create(model="perplexity/perplexity/sonar", input="Write a sum.")
    cost_usd = float(raw.headers["x-mlaas-cost-usd"])
    assert cost_usd > 0
    with client.responses.stream(model="perplexity/perplexity/sonar", input="Write a sum.") as stream:
        final = stream.get_final_response()
    assert final.usage is not None
    assert final.usage.model_extra == {**(final.usage.model_extra or {}), "cost_usd": cost_usd}
