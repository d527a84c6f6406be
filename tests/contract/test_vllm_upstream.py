"""The gateway in front of a real vLLM: its OpenAI endpoints and its Anthropic one; alone, and on Ray Serve."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator

import httpx
import openai
import pytest
from typer.testing import CliRunner

from mlaas.auth.keys import create_key
from mlaas.cli.main import app
from mlaas.router.tasks.quality import load_quality
from mlaas.router.types import LocalEndpoint
from mlaas.store.engine import migrate, open_store
from mlaas.store.keys import KeyRepository
from tests.fakes.serve_cluster import serve_cluster
from tests.fakes.servers import Gateway, running_gateway
from tests.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

MESSAGES = [{"role": "user", "content": "def add(a, b):"}]
LONG = {"max_tokens": 3000, "ignore_eos": True}


def router_file(url: str) -> str:
    return f"""
providers:
  house: {{kind: openai_compatible, base_url: "{url}/v1", api_key: x}}
  claude: {{kind: anthropic, base_url: "{url}/v1", api_key: x}}
models:
  default: {{targets: [local/tiny, house/tiny]}}
"""


@pytest.fixture(scope="module")
def gateway(vllm_url, tmp_path_factory) -> Iterator[Gateway]:
    endpoints = [LocalEndpoint(model="tiny", url=vllm_url)]
    with running_gateway(tmp_path_factory.mktemp("gateway"), router_file(vllm_url), endpoints=endpoints) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as sdk:
        yield sdk


def num_running(url: str) -> int:
    metrics = httpx.get(f"{url}/metrics").text
    found = re.findall(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} ([\d.]+)", metrics, re.MULTILINE)
    return int(sum(map(float, found)))


def leave_in_mid_stream(gateway_url: str, key: str, engine_url: str, body: dict[str, object]) -> None:
    """Ask for a long answer, leave once the engine works on it, and wait until the engine is idle again.

    A random model may end an answer before anyone has seen the engine work: then it is asked again.
    """
    wait_until(lambda: num_running(engine_url) == 0, what="earlier requests to end", timeout_s=60)
    for _ in range(20):
        connection = http.client.HTTPConnection(gateway_url.removeprefix("http://"), timeout=30)
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": f"Bearer {key}"})
        try:
            wait_until(lambda: num_running(engine_url) == 1, what="the engine to begin", timeout_s=5)
            break
        except TimeoutError:
            continue
        finally:
            connection.sock.close()
            connection.close()
    else:
        pytest.fail("the engine was never seen at work")
    wait_until(lambda: num_running(engine_url) == 0, what="the engine to be idle", timeout_s=5)


@pytest.mark.parametrize("model", ["tiny", "default", "house/tiny", "claude/tiny"])
def test_the_sdk_talks_to_vllm_whole_and_streamed(client, model):
    call = {"model": model, "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**call)
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**call, stream=True, stream_options=options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.choices[0].message.content == text
    assert text
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 12
    assert chunks[-1].usage.completion_tokens == 12
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens > 0


def test_both_dialects_of_one_server_give_one_answer(client):
    call = {"messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    answers = [client.chat.completions.create(model=model, **call) for model in ("house/tiny", "claude/tiny")]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    assert answers[0].usage.prompt_tokens == answers[1].usage.prompt_tokens


def test_completions_of_a_local_model(client):
    answer = client.completions.with_raw_response.create(model="tiny", prompt="def ", max_tokens=4)
    assert answer.headers["x-mlaas-provider"] == "local"
    assert answer.parse().usage.completion_tokens == 4


@pytest.mark.parametrize("model", ["tiny", "claude/tiny"])
def test_what_vllm_refuses_is_a_400_with_its_words(client, model):
    with pytest.raises(openai.BadRequestError, match="4096"):
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x y " * 5000}], max_tokens=9)


def test_what_a_model_is_not_made_for_is_told(client):
    with pytest.raises(openai.NotFoundError, match="no such API for this model"):
        client.embeddings.create(model="tiny", input="x")


def test_bench_models_measures_a_local_model(gateway, tmp_path, monkeypatch):
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path))
    monkeypatch.setenv("MLAAS_GATEWAY_PORT", gateway.url.rpartition(":")[2])
    monkeypatch.setenv("MLAAS_API_KEY", gateway.key)
    item = {"id": "a", "task": "code", "prompt": "def add(a, b):", "max_tokens": 4, "score": {"regex": "."}}
    suite, table = tmp_path / "suite.yaml", tmp_path / "quality.json"
    suite.write_text(json.dumps({"items": [item]}))
    options = ["--suite", str(suite), "--models", "tiny,claude/tiny", "--out", str(table), "--json"]
    done = CliRunner().invoke(app, ["bench-models", *options])
    assert done.exit_code == 0, done.output
    rows = {row["model"]: row for row in json.loads(done.output)["rows"]}
    assert {name: (row["samples"], row["errors"]) for name, row in rows.items()} == {
        "local/tiny": (1, 0),
        "claude/tiny": (1, 0),
    }
    assert all(row["latency_s"] > 0 for row in rows.values())
    assert load_quality(table).keys() == rows.keys()


@pytest.mark.parametrize("model", ["tiny", "claude/tiny"])
@pytest.mark.parametrize("is_stream", [True, False])
def test_a_caller_who_leaves_frees_the_engine(gateway, vllm_url, model, is_stream):
    body = {"model": model, "messages": MESSAGES, "stream": is_stream, "max_tokens": 3500}
    body |= {} if model.startswith("claude") else {"ignore_eos": True}
    leave_in_mid_stream(gateway.url, gateway.key, vllm_url, body)


def test_on_ray_serve_a_caller_who_leaves_frees_the_engine_and_the_log_is_written(vllm_url, tmp_path):
    """HAProxy and Serve's direct ingress stand between the caller and the gateway here."""
    (tmp_path / "router.yaml").write_text(router_file(vllm_url))
    migrate(f"sqlite:///{tmp_path / 'mlaas.db'}")
    keys = KeyRepository(open_store(f"sqlite:///{tmp_path / 'mlaas.db'}"))
    key, _ = create_key(keys, name="test", tenant="tests", role="user")
    environment = {"MLAAS_HOME": str(tmp_path), "MLAAS_ROUTER_CONFIG": str(tmp_path / "router.yaml")}
    application = {"name": "gateway", "import_path": "serve_apps.gateway:build", "route_prefix": "/", "args": {}}
    with serve_cluster(environment) as cluster:
        cluster.deploy([application])
        wait_until(lambda: httpx.get(f"{cluster.url}/healthz").is_success, what="the ingress", timeout_s=60)
        with openai.OpenAI(base_url=f"{cluster.url}/v1", api_key=key, max_retries=0) as sdk:
            stream = sdk.chat.completions.create(model="default", messages=MESSAGES, max_tokens=5, stream=True)
            assert len(list(stream)) >= 2
            with pytest.raises(openai.AuthenticationError):
                sdk.with_options(api_key="sk-mlaas-wrong").models.list()
            big = [{"role": "user", "content": "x" * 20 * 1024**2}]
            with pytest.raises(openai.APIStatusError) as caught:
                sdk.chat.completions.create(model="default", messages=big)
            assert caught.value.status_code == 413
        for is_stream in (True, False) * 3:
            body = {"model": "default", "messages": MESSAGES, "stream": is_stream, **LONG}
            leave_in_mid_stream(cluster.url, key, vllm_url, body)
        journal = tmp_path / "gateway" / "journal"
        wait_until(
            lambda: sum(each.read_text().count("client_gone") for each in journal.glob("*.jsonl")) >= 6,
            what="the journal",
            timeout_s=30,
        )
