import json

import pytest
from typer.testing import CliRunner, Result

from mlaas.cli.main import app
from mlaas.errors import ConfigError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run `mlaas` in a home that does not exist yet."""
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLAAS_DATABASE_URL", raising=False)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return invoke


def test_a_key_with_all_limits_is_made_without_a_running_platform_and_listed(run):
    limits = ["--models", "fast,smart", "--rpm", "10", "--tpm", "1000", "--concurrency", "3", "--priority", "2"]
    made = run("keys", "create", "--tenant", "ada", *limits, "--budget-usd", "0.010", "--per", "day", "--json")
    assert made.exit_code == 0, made.output
    created = json.loads(made.output)
    assert created.pop("key").startswith("sk-mlaas-")
    [listed] = json.loads(run("keys", "list", "--json").output)
    assert listed == created
    shown = {name: listed[name] for name in ("tenant", "models", "rpm", "tpm", "concurrency", "budget_usd", "per")}
    assert shown == {
        "tenant": "ada",
        "models": ["fast", "smart"],
        "rpm": 10,
        "tpm": 1000,
        "concurrency": 3,
        "budget_usd": "0.010",
        "per": "day",
    }


def test_a_key_is_unlimited_unless_something_is_said(run):
    created = json.loads(run("keys", "create", "--json").output)
    names = ("models", "rpm", "tpm", "concurrency", "budget_usd", "per")
    assert [created[name] for name in names] == [None] * len(names)


def test_a_bad_limit_is_refused_and_no_key_is_made(run):
    refused = run("keys", "create", "--budget-usd", "NaN", "--per", "day")
    assert isinstance(refused.exception, ConfigError)
    assert "budget_usd=NaN" in refused.exception.message
    run("keys", "create")
    assert len(json.loads(run("keys", "list", "--json").output)) == 1
