"""`GET /api/v1/usage`: who sees what, and what a wrong question is answered with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from mlaas.auth.types import Principal, Role
from mlaas.cli.main import app
from mlaas.errors import InvalidRequest, PermissionDenied
from mlaas.router.money.usage_api import answer_usage, parse_instant
from mlaas.store.engine import open_store
from mlaas.store.tables import metadata
from mlaas.store.usage import UsageEntry, UsageRepository

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def usage(tmp_path: Path) -> Iterator[UsageRepository]:
    engine = open_store(f"sqlite:///{tmp_path}/mlaas.db")
    metadata.create_all(engine)
    repository = UsageRepository(engine)
    repository.add(
        [entry(0, "acme", 3_000_000, age_h=1), entry(1, "acme", 1, age_h=30), entry(2, "beta", None, age_h=2)]
    )
    yield repository
    engine.dispose()


def entry(number: int, tenant: str, cost_pico_usd: int | None, *, age_h: float) -> UsageEntry:
    return UsageEntry(
        id=str(number),
        request_id="r",
        at=NOW - timedelta(hours=age_h),
        key_id=f"key-{tenant}",
        tenant=tenant,
        model="fast",
        provider="openai",
        target="openai/gpt-5-mini",
        operation="chat/completions",
        status=200,
        input_tokens=10,
        output_tokens=5,
        cost_pico_usd=cost_pico_usd,
    )


def principal(role: Role = "admin", tenant: str = "acme") -> Principal:
    return Principal(key_id="k", tenant=tenant, role=role)


def test_an_admin_sees_every_tenant_of_the_last_day(usage: UsageRepository) -> None:
    answer = answer_usage(usage, principal(), {"by": "tenant"}, now=NOW)
    assert [row["tenant"] for row in answer["data"]] == ["acme", "beta"]
    assert answer["data"][0]["cost_usd"] == 0.000003
    assert answer["total"]["num_requests"] == 2
    assert (answer["total"]["num_unpriced"], answer["total"]["cost_usd"]) == (1, 0.000003)
    assert (answer["since"], answer["until"]) == ("2026-11-22T12:00:00+00:00", "2026-11-23T12:00:00+00:00")
    assert orjson.loads(orjson.dumps(answer)) == answer


def test_a_cost_is_exact_to_the_picodollar(usage: UsageRepository) -> None:
    answer = answer_usage(usage, principal(), {"by": "tenant", "since": "7d", "tenant": "acme"}, now=NOW)
    assert orjson.dumps(answer["total"]["cost_usd"]) == b"3.000001e-6"


def test_a_user_sees_the_tenant_of_their_key_and_no_other(usage: UsageRepository) -> None:
    for query in ({"by": "tenant"}, {"by": "tenant", "tenant": "beta"}):
        answer = answer_usage(usage, principal("user", "beta"), query, now=NOW)
        assert [row["tenant"] for row in answer["data"]] == ["beta"]
    with pytest.raises(PermissionDenied, match=r"'acme'.*admin"):
        answer_usage(usage, principal("user", "beta"), {"tenant": "acme"}, now=NOW)


def test_until_ends_the_window(usage: UsageRepository) -> None:
    answer = answer_usage(usage, principal(), {"since": "7d", "until": "24h"}, now=NOW)
    assert answer["total"]["num_requests"] == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"by": "modle"}, r"by: 'modle'.*did you mean 'model'.*tenant, model, provider, key, day"),
        ({"sinse": "1h"}, r"sinse: .*did you mean 'since'"),
        ({"since": "yesterday"}, r"since='yesterday'.*24h.*2026-11-23"),
        ({"until": "9999999h"}, r"until='9999999h'"),
        ({"since": "999999d"}, r"since='999999d'"),
        ({"since": "0001-01-01T00:00:00+14:00"}, r"since="),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value_and_the_way_out(
    usage: UsageRepository, query: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        answer_usage(usage, principal(), query, now=NOW)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("30m", NOW - timedelta(minutes=30)),
        ("24h", NOW - timedelta(days=1)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00:00+02:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-11-01T12:00:00Z", datetime(2026, 11, 1, 12, tzinfo=UTC)),
    ],
)
def test_an_instant_is_an_age_or_a_time(text: str, instant: datetime) -> None:
    assert parse_instant("since", text, now=NOW) == instant


def test_the_command_prints_a_table_with_its_total(
    usage: UsageRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path))
    arguments = ["usage", "--by", "tenant", "--since", "2026-11-01", "--until", "2026-12-01"]
    table = CliRunner().invoke(app, arguments).stdout.splitlines()
    assert [line.split()[:2] for line in table] == [
        ["tenant", "requests"],
        ["acme", "2"],
        ["beta", "1"],
        ["total", "3"],
    ]
    assert "0.000000 (+1 without a price)" in table[2]
    answer = json.loads(CliRunner().invoke(app, [*arguments, "--tenant", "acme", "--json"]).stdout)
    assert answer["total"]["num_requests"] == 2
    empty = CliRunner().invoke(app, ["usage", "--since", "2026-12-01", "--until", "2026-12-02"]).stdout
    assert "no requests" in empty
