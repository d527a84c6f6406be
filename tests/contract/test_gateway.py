"""The gateway over real sockets, driven by the official `openai` SDK and by raw bytes."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import openai
import pytest

from mlaas.auth.keys import create_key
from mlaas.providers.simulated.directive import DEFAULTS
from mlaas.providers.simulated.server import Simulator
from mlaas.router.types import LocalEndpoint
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import serving, simulated_answer, simulating
from tests.waiting import wait_until

MESSAGES = [{"role": "user", "content": "Write a sum. CANARY-PROMPT"}]
UPSTREAM_KEY = "sk-upstream-canary"
ANSWER = simulated_answer(MESSAGES[0]["content"])
TEXT = ANSWER.text
USAGE = (ANSWER.input_tokens, ANSWER.output_tokens)


@pytest.fixture
def simulated() -> Iterator[tuple[str, Simulator]]:
    with simulating() as running:
        yield running


@pytest.fixture
def upstream(simulated) -> Simulator:
    return simulated[1]


@pytest.fixture
def upstream_url(simulated) -> str:
    return simulated[0]


@pytest.fixture
def config(upstream_url):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    return f"""
providers:
  house: {{kind: openai_compatible, base_url: "{upstream_url}/v1", api_key: {UPSTREAM_KEY}, models: [m]}}
  claude: {{kind: anthropic, base_url: "{upstream_url}/anthropic/v1", api_key: {UPSTREAM_KEY}}}
  sonar: {{kind: perplexity, base_url: "{upstream_url}/perplexity/v1", api_key: {UPSTREAM_KEY}}}
  down: {{kind: openai_compatible, base_url: "http://127.0.0.1:{port}/v1"}}
  openai: {{api_key_env: MLAAS_TEST_UNSET_KEY}}
models:
  default: {{targets: [local/tiny, house/m]}}
  second: {{targets: [down/x, house/m]}}
  third: {{targets: [house/sim-500, house/sim-truncated, house/m]}}
  wrong: {{targets: [house/sim-400, house/m]}}
timeouts: {{connect_s: 2, first_byte_s: 0.5, between_bytes_s: 0.5, restart_wait_s: 0.3}}
"""


@pytest.fixture
def gateway(tmp_path, config) -> Iterator[Gateway]:
    with running_gateway(tmp_path, config, deployed=["starting"]) as running:
        yield running


@pytest.fixture
def client(gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def http_client(gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {gateway.key}"}, timeout=10) as raw:
        yield raw


def read_events(response: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]


# --- the SDK ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["house/m", "claude/m", "sonar/m"])
def test_the_sdk_gets_a_whole_answer_from_every_dialect(client, model):
    answer = client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES)
    completion = answer.parse()
    assert completion.choices[0].message.content == TEXT
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == USAGE
    provider, _, name = model.partition("/")
    assert answer.headers["x-mlaas-provider"] == provider
    assert answer.headers["x-mlaas-model"] == name
    assert answer.headers["x-mlaas-route-reason"] == "named by the caller"


@pytest.mark.parametrize("model", ["house/m", "claude/m", "sonar/m"])
def test_the_sdk_streams_from_every_dialect(client, model):
    options = {"include_usage": True}
    stream = client.chat.completions.create(model=model, messages=MESSAGES, stream=True, stream_options=options)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.total_tokens == sum(USAGE)


async def test_the_async_sdk_streams(gateway):
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key) as sdk:
        stream = await sdk.chat.completions.create(model="house/m", messages=MESSAGES, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        whole = await sdk.chat.completions.create(model="claude/m", messages=MESSAGES)
    assert text == TEXT
    assert whole.choices[0].message.content == TEXT


def test_the_sdk_gets_completions(client):
    assert client.completions.create(model="house/m", prompt="x").choices[0].text == simulated_answer("x").text
    chunks = client.completions.create(model="house/m", prompt="x", stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == simulated_answer("x").text


def test_the_sdk_lists_and_retrieves_models(client):
    names = [model.id for model in client.models.list()]
    assert names == ["default", "second", "third", "wrong", "starting", "house/m"]
    assert client.models.retrieve("house/m").owned_by == "house"
    assert client.models.retrieve("default").owned_by == "mlaas"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")


def test_only_model_and_key_change_on_the_way_to_the_same_dialect(http_client, upstream):
    body = (
        b'{ "messages" : [{"role":"user","content":"\\u00e9 \\"model\\": 1"}],\n'
        b' "temperature": 1e0, "model" :"second", "x":[1.50] }'
    )
    assert http_client.post("/v1/chat/completions", content=body).status_code == 200
    assert [seen.body for seen in upstream.seen] == [body.replace(b'"second"', b'"m"')]
    assert upstream.seen[0].headers["authorization"] == f"Bearer {UPSTREAM_KEY}"


# --- choosing --------------------------------------------------------------------------------------------------------


def test_an_alias_falls_through_a_local_model_that_is_not_deployed(client):
    answer = client.chat.completions.with_raw_response.create(model="default", messages=MESSAGES)
    assert answer.headers["x-mlaas-model"] == "m"
    assert answer.headers["x-mlaas-route-reason"] == "local/tiny has no live replica"


def test_an_alias_takes_the_local_model_once_it_is_there(client, gateway, upstream_url):
    gateway.endpoints.replace([LocalEndpoint(model="tiny", url=upstream_url)])
    wait_until(
        lambda: "tiny" in [model.id for model in client.models.list()], what="the model in the list", timeout_s=5
    )
    answer = client.chat.completions.with_raw_response.create(model="default", messages=MESSAGES)
    assert answer.headers["x-mlaas-provider"] == "local"
    assert answer.headers["x-mlaas-route-reason"] == "first target"
    assert client.chat.completions.create(model="tiny", messages=MESSAGES).choices[0].message.content == TEXT


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_alias_moves_on_from_a_target_that_refuses(http_client, is_stream):
    body = {"model": "second", "messages": MESSAGES, "stream": is_stream}
    answer = http_client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-mlaas-provider"] == "house"
    assert answer.headers["x-mlaas-route-reason"] == "down/x failed: upstream_refused"


def test_an_alias_moves_on_from_a_target_that_fails_but_not_from_a_wrong_request(http_client):
    answer = http_client.post("/v1/chat/completions", json={"model": "third", "messages": MESSAGES})
    assert (answer.status_code, answer.headers["x-mlaas-model"]) == (200, "m")
    answer = http_client.post("/v1/chat/completions", json={"model": "wrong", "messages": MESSAGES})
    assert answer.status_code == 400


def test_a_killed_replica_gives_no_error_while_another_lives(http_client, gateway, upstream_url):
    """One of two endpoints goes away for good; it stays announced, as it does until its lease ends."""
    with simulating() as (doomed, _):
        gateway.endpoints.replace([LocalEndpoint(model="tiny", url=url) for url in (doomed, upstream_url)])
        body = {"model": "tiny", "messages": MESSAGES}
        wait_until(
            lambda: http_client.post("/v1/chat/completions", json=body).status_code == 200,
            what="an answer",
            timeout_s=5,
        )
        assert {http_client.post("/v1/chat/completions", json=body).status_code for _ in range(20)} == {200}
    assert {http_client.post("/v1/chat/completions", json=body).status_code for _ in range(100)} == {200}


def test_a_replica_killed_under_load_gives_no_error(gateway, http_client, upstream_url):
    """Requests are under way at both replicas when one dies: those move on before their caller sees a byte."""
    body = {"model": "tiny", "messages": MESSAGES}
    statuses: list[int] = []
    is_over = threading.Event()

    def load() -> None:
        with httpx.Client(headers=http_client.headers, timeout=20) as caller:
            while not is_over.is_set():
                statuses.append(caller.post(f"{gateway.url}/v1/chat/completions", json=body).status_code)

    threads = [threading.Thread(target=load) for _ in range(8)]
    with simulating(defaults=replace(DEFAULTS, latency=0.05)) as (url, doomed):
        gateway.endpoints.replace([LocalEndpoint(model="tiny", url=each) for each in (url, upstream_url)])
        wait_until(
            lambda: http_client.post("/v1/chat/completions", json=body).status_code == 200,
            what="an answer",
            timeout_s=5,
        )
        for thread in threads:
            thread.start()
        wait_until(
            lambda: doomed.num_requests > 20 and doomed.num_active > 1,
            what="traffic on the doomed replica",
            timeout_s=5,
        )
    num_before = len(statuses)
    wait_until(lambda: len(statuses) > num_before + 200, timeout_s=30, what="200 answers more")
    is_over.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}


def test_a_request_waits_for_the_only_replica_to_come_back(http_client, gateway):
    with serving(Simulator().app()) as url:
        gateway.endpoints.replace([LocalEndpoint(model="tiny", url=url)])
        body = {"model": "tiny", "messages": MESSAGES}
        wait_until(
            lambda: http_client.post("/v1/chat/completions", json=body).status_code == 200,
            what="an answer",
            timeout_s=5,
        )
    port = int(url.rpartition(":")[2])
    back = threading.Event()

    def come_back() -> None:
        tick.wait(0.1)
        with serving(Simulator().app(), port=port):
            back.wait(10)

    tick = threading.Event()
    thread = threading.Thread(target=come_back)
    thread.start()
    try:
        assert http_client.post("/v1/chat/completions", json=body).status_code == 200
    finally:
        back.set()
        thread.join()


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "code"), [(None, "missing_api_key"), ("sk-mlaas-wrong", "invalid_api_key"), ("sk-ü", "invalid_api_key")]
)
def test_a_wrong_or_missing_key_is_401(gateway, key, code):
    headers = {} if key is None else {"authorization": f"Bearer {key}".encode()}
    for method, path in (("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/v1/models")):
        answer = httpx.request(method, gateway.url + path, headers=headers, json={"model": "house/m"})
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == code


def test_the_key_may_come_as_x_api_key(gateway):
    assert httpx.get(f"{gateway.url}/v1/models", headers={"x-api-key": gateway.key}).status_code == 200


def test_a_revoked_key_is_refused_and_a_new_one_let_in_within_seconds(gateway):
    secret, key = create_key(gateway.keys, name="later", tenant="tests", role="user")

    def status() -> int:
        return httpx.get(f"{gateway.url}/v1/models", headers={"authorization": f"Bearer {secret}"}).status_code

    wait_until(lambda: status() == 200, what="the key to be known", timeout_s=5)
    gateway.keys.revoke(key.id)
    wait_until(lambda: status() == 401, what="the revoked key to be refused", timeout_s=5)


def test_a_store_outage_keeps_known_keys_and_does_not_open_the_gate(gateway, http_client):
    gateway.store_path.rename(gateway.store_path.with_suffix(".away"))
    gateway.store_path.mkdir()
    for _ in range(30):
        assert http_client.get("/v1/models").status_code == 200
        assert httpx.get(f"{gateway.url}/v1/models", headers={"x-api-key": "sk-mlaas-x"}).status_code == 401
        threading.Event().wait(0.05)


def test_a_gateway_that_never_saw_its_keys_answers_503(tmp_path, config):
    with running_gateway(tmp_path, config, store_url=f"sqlite:///{tmp_path / 'missing' / 'mlaas.db'}") as gateway:
        answer = httpx.get(f"{gateway.url}/v1/models", headers={"x-api-key": gateway.key})
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200


def test_an_unknown_model_is_404_and_lists_the_models(client):
    for model in ("nope", "openai/gpt-5", "house/\r\nx: y", "local/other", ""):
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=model, messages=MESSAGES)
        assert caught.value.status_code == (404 if model else 400)
    with pytest.raises(openai.NotFoundError, match="default, second, third, wrong, starting, house/m") as caught:
        client.chat.completions.create(model="nope", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    for model, meant in (("defalt", "'default'"), ("huose/m", "'house/m'")):
        with pytest.raises(openai.NotFoundError, match=f"did you mean {meant}"):
            client.chat.completions.create(model=model, messages=MESSAGES)
    with pytest.raises(openai.NotFoundError, match="MLAAS_TEST_UNSET_KEY"):
        client.chat.completions.create(model="openai/gpt-5", messages=MESSAGES)


def test_a_local_model_without_replica_is_503_and_says_how_to_deploy_it(http_client):
    answer = http_client.post("/v1/chat/completions", json={"model": "tiny", "messages": MESSAGES})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "mlaas deploy tiny" in answer.json()["error"]["message"]
    answer = http_client.post("/v1/chat/completions", json={"model": "starting", "messages": MESSAGES})
    assert answer.status_code == 503
    assert "no live replica yet" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model": "house/m", "messages": [', None),
        (b"", None),
        (b"\xff\xfe", None),
        (b"[]", None),
        (b'"x"', None),
        (b"{}", "model"),
        (b'{"model": 7}', "model"),
        (b'{"model": null}', "model"),
        (b'{"model": "house/m"}', "messages"),
        (b'{"model": "house/m", "messages": "hi"}', "messages"),
        (b'{"model": "house/m", "messages": []}', "messages"),
        (b'{"model": "house/m", "messages": [1]}', "messages[0]"),
        (b'{"model": "house/m", "messages": [{"content": "x"}]}', "messages[0].role"),
        (b'{"model": "house/m", "messages": [{"role": "user", "content": 3}]}', "messages[0].content"),
        (b'{"model": "house/m", "messages": [{"role": "user"}], "stream": "yes"}', "stream"),
        (b'{"model": "house/m", "messages": [{"role": "user"}], "max_tokens": 1.5}', "max_tokens"),
        (b'{"model": "house/m", "messages": [{"role": "user"}], "temperature": true}', "temperature"),
        (b'{"model": "house/m", "messages": [{"role": "user"}], "max_tokens": 0}', "max_tokens"),
        (b'{"model": "house/m", "messages": [{"role": "user"}], "max_completion_tokens": -5}', "max_completion_tokens"),
        (b'{"model": "house/m", "messages": [{"role": "user"}], "n": -1}', "n"),
        (b'{"model": "claude/m", "messages": [{"role": "user"}], "service_tier": {"a": 1}}', "service_tier"),
        (b'{"model": "house/m", "messages": [{"role": "user"}], "temperature": -0.1}', "temperature"),
        (b'{"model": "claude/m", "messages": [{"role": "user"}], "seed": 4}', "seed"),
        (b'{"model": "sonar/m", "messages": [{"role": "user"}], "tools": [{}]}', "tools[0]"),
    ],
)
def test_a_malformed_body_is_400_and_names_the_field(http_client, upstream, body, param):
    answer = http_client.post("/v1/chat/completions", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert not upstream.seen


def test_a_prompt_that_is_none_is_400(http_client):
    answer = http_client.post("/v1/completions", json={"model": "house/m"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


@pytest.mark.parametrize("body", [{"max_tokens": -1}, {"best_of": 0}])
def test_a_completion_cannot_be_shorter_than_nothing(http_client, body):
    answer = http_client.post("/v1/completions", json={"model": "house/m", "prompt": "x", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(body)))


def test_a_provider_without_embeddings_is_400(http_client):
    answer = http_client.post("/v1/embeddings", json={"model": "claude/m", "input": "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_operation"


def test_a_body_of_20_mb_is_413(http_client, upstream):
    body = json.dumps({"model": "house/m", "messages": [{"role": "user", "content": "x" * 20 * 1024**2}]}).encode()
    answer = http_client.post("/v1/chat/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    answer = http_client.post("/v1/chat/completions", content=iter([body[:1_000_000]] * 22))
    assert answer.status_code == 413
    assert not upstream.seen
    small = {"model": "house/m", "messages": [{"role": "user", "content": "x" * 19 * 1024**2}]}
    assert http_client.post("/v1/chat/completions", json=small).status_code == 200


def test_unknown_routes_are_404_and_wrong_methods_405(http_client):
    for path in ("/", "/v1", "/v1/chat", "/v2/models", "/v1/chat/completions/"):
        answer = http_client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_route")
    for method, path, allowed in (("GET", "/v1/chat/completions", "POST"), ("DELETE", "/v1/models/house/m", "GET")):
        answer = http_client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_health_needs_no_key_and_says_which_models_are_up(gateway):
    answer = httpx.get(f"{gateway.url}/healthz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.json()["models"]["default"] == "up"


# --- upstream faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["house", "claude", "sonar"])
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("sim-400", 400, "code_400"),
        ("sim-401", 502, "code_401"),
        ("sim-404", 404, "code_404"),
        ("sim-429", 429, "code_429"),
        ("sim-500", 500, "code_500"),
        ("sim-529", 503, "code_529"),
        ("sim-disconnect", 502, "upstream_closed"),
        ("sim-slow", 504, "upstream_timeout"),
        ("sim-quota", 402, None),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_an_upstream_fault_before_the_first_byte_has_its_status(http_client, provider, fault, status, code, is_stream):
    body = {"model": f"{provider}/{fault}", "messages": MESSAGES, "stream": is_stream}
    answer = http_client.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code or error["code"])
    if status in (429, 529):
        assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("provider", ["house", "claude", "sonar"])
def test_an_answer_that_cannot_be_read_is_502_and_a_stream_that_begins_with_an_error_is_none(http_client, provider):
    body = {"model": f"{provider}/sim-malformed", "messages": MESSAGES}
    answer = http_client.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreadable")
    body = {"model": f"{provider}/sim-error-first", "messages": MESSAGES, "stream": True}
    answer = http_client.post("/v1/chat/completions", json=body)
    assert answer.status_code in (500, 503)
    assert "told to fail in the middle" in answer.json()["error"]["message"]


def test_an_upstream_that_refuses_is_503(http_client):
    answer = http_client.post("/v1/chat/completions", json={"model": "down/x", "messages": MESSAGES})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_refused")


@pytest.mark.parametrize("provider", ["house", "claude", "sonar"])
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("sim-stall", "upstream_timeout"),
        ("sim-truncated", "upstream_closed"),
        ("sim-short", "upstream_closed"),
        ("sim-malformed", "upstream_unreadable"),
        ("sim-error", None),
    ],
)
def test_an_upstream_fault_in_mid_stream_is_an_error_event(http_client, client, provider, fault, code):
    body = {"model": f"{provider}/{fault}@rate:300", "messages": MESSAGES, "stream": True}
    with http_client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        events = read_events(answer)
    error = json.loads(events[-1])["error"]
    assert error["code"] == (code or error["code"])
    assert "[DONE]" not in events
    assert all(json.loads(each) for each in events)
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=body["model"], messages=MESSAGES, stream=True))


@pytest.mark.parametrize("fault", ["sim-endless", "sim-stall", "sim-slow"])
@pytest.mark.parametrize("is_stream", [True, False])
def test_a_caller_who_leaves_frees_the_upstream(gateway, upstream, fault, is_stream):
    body = json.dumps({"model": f"house/{fault}", "messages": MESSAGES, "stream": is_stream})
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"))
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {gateway.key}"})
    if fault != "sim-slow" and not is_stream:
        connection.close()
        return
    wait_until(lambda: upstream.num_active == 1, what="the request to reach the upstream", timeout_s=5)
    connection.close()
    wait_until(lambda: upstream.num_active == 0, timeout_s=0.4, what="the upstream to be freed")


def test_the_journal_has_one_line_per_request_and_no_secret(http_client, gateway, client):
    client.chat.completions.create(model="house/m", messages=MESSAGES)
    http_client.post("/v1/chat/completions", json={"model": "down/x", "messages": MESSAGES})
    http_client.post("/v1/chat/completions", content=b'{"model": "house/m", "messages": "CANARY-PROMPT"}')
    httpx.get(f"{gateway.url}/v1/models")
    wait_until(lambda: len(gateway.records()) == 4, what="four records", timeout_s=5)
    records = gateway.records()
    assert [record["status"] for record in records] == [200, 503, 400, 401]
    assert records[0]["target"] == "house/m"
    assert records[0]["key_id"].startswith("key-")
    assert records[1]["error"] == "upstream_refused"
    assert not any(secret in json.dumps(records) for secret in ("CANARY", gateway.key, UPSTREAM_KEY))
