"""Files, batches and `mlaas bench-models` through a running gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from typer.testing import CliRunner

from mlaas.cli.main import app
from mlaas.router.tasks.quality import load_quality
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulated_answer, simulating
from tests.waiting import wait_until

CONFIG = """
providers:
  house: {{kind: openai_compatible, base_url: "{url}/v1", api_key: x, models: [m]}}
prices:
  house/m: {{input_usd_per_mtok: 1000, output_usd_per_mtok: 1000}}
retries: {{min_per_s: 0, budget_ratio: 0}}
"""
TEXT = simulated_answer("hi").text


@pytest.fixture
def gateway(tmp_path) -> Iterator[Gateway]:
    with simulating() as (url, _), running_gateway(tmp_path, CONFIG.format(url=url)) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as sdk:
        yield sdk


def line(custom_id: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


def test_a_batch_goes_through_the_gateway(client, gateway: Gateway) -> None:
    content = "\n".join([line("a", "house/m"), line("b", "house/sim-400"), line("c", "nobody"), line("d", "house/m")])
    file = client.files.create(file=("in.jsonl", content.encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", what="the batch", timeout_s=30)
    batch = client.batches.retrieve(batch.id)
    counts = batch.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (4, 2, 2)
    output = [json.loads(each) for each in client.files.content(batch.output_file_id).text.splitlines()]
    errors = [json.loads(each) for each in client.files.content(batch.error_file_id).text.splitlines()]
    assert [each["custom_id"] for each in output] == ["a", "d"]
    assert {each["response"]["body"]["choices"][0]["message"]["content"] for each in output} == {TEXT}
    assert [(each["custom_id"], each["response"]["status_code"]) for each in errors] == [("b", 400), ("c", 404)]


def test_a_file_may_be_longer_than_a_request(client) -> None:
    file = client.files.create(file=("in.jsonl", b" " * 21_000_000), purpose="batch")
    assert file.bytes == 21_000_000


@pytest.fixture
def instance(tmp_path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the commands talk to the gateway of the test."""
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path))
    monkeypatch.setenv("MLAAS_GATEWAY_PORT", gateway.url.rpartition(":")[2])
    monkeypatch.setenv("MLAAS_API_KEY", gateway.key)
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_bench_models_writes_the_table_and_goes_on_where_it_stopped(instance: Path) -> None:
    suite = instance / "suite.yaml"
    items = [
        {"id": "right", "task": "code", "prompt": "hi", "score": {"contains": [TEXT.split()[0]]}},
        {"id": "wrong", "task": "code", "prompt": "hi", "score": {"exact": "something else"}},
    ]
    suite.write_text(json.dumps({"items": items}))
    out, chart = instance / "quality.json", instance / "quality.png"
    options = ["--suite", str(suite), "--models", "house/m,house/sim-500", "--out", str(out)]
    done = run("bench-models", *options, "--chart", str(chart), "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    [row] = report["rows"]
    assert (row["model"], row["task"], row["score"], row["samples"], row["errors"]) == ("house/m", "code", 0.5, 2, 0)
    assert row["cost_usd"] > 0
    assert row["latency_s"] > 0
    assert sum(report["errors"].values()) == 2
    assert all(name.startswith("house/sim-500: ") for name in report["errors"])
    assert load_quality(out) == {"house/m": {"code": 0.5, "": 0.5}}
    assert chart.read_bytes().startswith(b"\x89PNG")
    log = out.with_name("quality.json.samples.jsonl")
    scored = [each for each in log.read_text().splitlines() if '"error":null' in each]
    again = run("bench-models", *options)
    assert again.exit_code == 0, again.output
    assert "house/m" in again.output
    assert [each for each in log.read_text().splitlines() if '"error":null' in each] == scored


def test_bench_models_names_a_missing_judge(instance: Path) -> None:
    suite = instance / "suite.yaml"
    suite.write_text("items:\n  - {id: a, task: chat, prompt: hi, score: {judge: is it kind}}\n")
    done = run("bench-models", "--suite", str(suite))
    assert "--judge MODEL" in str(done.exception)


def test_batches_from_the_command_line(instance: Path) -> None:
    file = instance / "in.jsonl"
    file.write_text(line("a", "house/m"))
    done = run("batches", "submit", str(file), "--wait", "--json")
    assert done.exit_code == 0, done.output
    [batch] = json.loads(done.output)
    assert (batch["status"], batch["completed"]) == ("completed", 1)
    output = run("batches", "output", batch["id"])
    assert json.loads(output.output)["custom_id"] == "a"
    assert batch["id"] in run("batches", "list").output
    assert batch["id"] in run("batches", "show", batch["id"]).output
    assert run("batches", "cancel", batch["id"]).exit_code == 1


def test_a_batch_of_responses_keeps_to_its_tenant(client, gateway: Gateway) -> None:
    mine = client.responses.create(model="house/m", input="hi")
    lines = [
        {"model": "house/m", "input": "and then?", "previous_response_id": mine.id},
        {"model": "house/m", "input": "and then?", "previous_response_id": "resp_of_somebody_else"},
        {"model": "house/m", "input": "hi", "background": True},
    ]
    content = "\n".join(
        json.dumps({"custom_id": str(number), "method": "POST", "url": "/v1/responses", "body": body})
        for number, body in enumerate(lines)
    )
    file = client.files.create(file=("in.jsonl", content.encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", what="the batch", timeout_s=30)
    batch = client.batches.retrieve(batch.id)
    [output] = [json.loads(each) for each in client.files.content(batch.output_file_id).text.splitlines()]
    errors = [json.loads(each) for each in client.files.content(batch.error_file_id).text.splitlines()]
    kept = client.responses.retrieve(output["response"]["body"]["id"])
    assert kept.previous_response_id == mine.id
    params = [each["response"]["body"]["error"]["param"] for each in errors]
    assert params == ["previous_response_id", "background"]
