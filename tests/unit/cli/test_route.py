"""`mlaas route explain`, by file and by log."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from mlaas.cli.main import app
from mlaas.errors import MlaasError
from mlaas.router.choice.decide import decide
from mlaas.router.choice.decision_log import decision_to_json
from tests.fakes.snapshots import make_snapshot

FILE = """
providers:
  house: {kind: openai_compatible, base_url: "http://127.0.0.1:1/v1", api_key: x}
  openai: {api_key: x}
models:
  fast: {policy: cheapest, targets: [openai/gpt-5-mini, house/m]}
prices:
  house/m: {input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.4}
  openai/gpt-5-mini: {input_usd_per_mtok: 1, output_usd_per_mtok: 4}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "router.yaml"
    path.write_text(FILE)
    return path


def run(*arguments, **options):
    return CliRunner().invoke(app, ["route", "explain", *map(str, arguments)], **options)


def test_the_decision_is_shown_with_its_figures(config):
    found = run("--model", "fast", "--config", config)
    assert found.exit_code == 0
    assert found.output.startswith("fast (cheapest) -> house/m\n  cheapest: $0.38/M vs $3.83/M at openai/gpt-5-mini")
    assert "without live data" in found.output


def test_a_request_may_come_from_standard_input(config):
    body = json.dumps({"model": "fast", "max_tokens": 1000, "messages": [{"role": "user", "content": "x" * 4000}]})
    found = run("--config", config, "--request", "-", "--json", input=body)
    told = json.loads(found.output)
    assert (told["target"], told["output_tokens"]) == ("house/m", 1000)
    assert told["input_tokens"] == pytest.approx(1020, abs=20)


def test_what_a_target_can_do_is_told(config):
    told = json.loads(run("--model", "fast", "--config", config, "--json").output)
    can = {each["target"]: (each["context_tokens"], "tools" in each["lacks"]) for each in told["candidates"]}
    assert can == {"house/m": (None, False), "openai/gpt-5-mini": (400_000, False)}


def test_what_was_told_can_be_replayed(config, tmp_path):
    told = json.loads(run("--model", "fast", "--config", config, "--json").output)
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(told) + "\n")
    found = run("--replay", log)
    assert found.exit_code == 0
    assert found.output.endswith("1 of 1 decisions are the same\n")


def test_a_decision_that_is_another_now_is_told_and_fails(tmp_path):
    shot = next(each for each in map(make_snapshot, range(999)) if len(decide(each).attempts) > 1)
    logged = json.loads(decision_to_json(shot, decide(shot)))
    same = run("--replay", json.dumps(logged), "--json")
    assert (same.exit_code, json.loads(same.output)[0]["is_same"]) == (0, True)
    logged["decision"]["attempts"].reverse()
    other = run("--replay", json.dumps(logged))
    assert other.exit_code == 1
    assert "differs: tried" in other.output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "no_model"),
        (["--request", "/nowhere.json"], "bad_request_file"),
        (["--replay", "{}"], "not_a_decision"),
        (["--replay", "/nowhere.jsonl"], "unreadable_log"),
    ],
)
def test_what_is_missing_is_said(config, arguments, code):
    error = run("--config", config, *arguments).exception
    assert isinstance(error, MlaasError)
    assert error.code == code
