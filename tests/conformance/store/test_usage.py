from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete

from mlaas.store.engine import transaction
from mlaas.store.tables import usage
from mlaas.store.usage import GROUPS, GroupBy, UsageEntry, UsageRepository

DAY = datetime(2026, 11, 23, tzinfo=UTC)
ENTRY = UsageEntry(
    id="0",
    request_id="r",
    at=DAY,
    key_id="k1",
    tenant="acme",
    model="fast",
    provider="openai",
    target="openai/gpt-5-mini",
    operation="chat/completions",
    status=200,
    input_tokens=10,
    cache_read_tokens=4,
    cache_write_tokens=2,
    cache_write_1h_tokens=1,
    output_tokens=5,
    reasoning_tokens=3,
    cost_pico_usd=1_500_000,
    duration_ms=20.0,
    ttft_ms=5.0,
)
FOREVER = {"since": DAY - timedelta(days=9999), "until": DAY + timedelta(days=9999)}


def test_an_entry_comes_back_as_it_was(store: Engine) -> None:
    repository = UsageRepository(store)
    whole = replace(ENTRY, error="upstream_timeout", reason="é", is_stream=True, is_estimated=True, cache="exact")
    bare = UsageEntry(
        id="1",
        request_id="r",
        at=DAY + timedelta(microseconds=1),
        key_id="k",
        tenant="t",
        model="",
        provider="",
        target="",
        operation="messages",
        status=429,
    )
    repository.add([bare, whole])
    assert list(repository.get("r")) == [whole, bare]
    assert list(repository.get("1")) == [bare]
    assert list(repository.get("nothing")) == []


def test_adding_again_changes_nothing(store: Engine) -> None:
    repository = UsageRepository(store)
    repository.add([ENTRY])
    repository.add([replace(ENTRY, cost_pico_usd=9), replace(ENTRY, id="1"), replace(ENTRY, id="1")])
    [total] = repository.summarize("tenant", **FOREVER)
    assert (total.num_requests, total.cost_usd) == (2, Decimal("0.000003"))


def test_more_rows_than_one_statement_takes_are_all_stored(store: Engine) -> None:
    repository = UsageRepository(store)
    repository.add([])
    repository.add([replace(ENTRY, id=str(number)) for number in range(1203)])
    [total] = repository.summarize("model", **FOREVER)
    assert total.num_requests == 1203
    assert total.cost_usd == 1203 * Decimal("0.0000015")


def test_a_total_counts_tokens_errors_hits_and_what_has_no_price(store: Engine) -> None:
    repository = UsageRepository(store)
    repository.add(
        [
            replace(ENTRY, is_stream=True),
            replace(ENTRY, id="1", cost_pico_usd=None, ttft_ms=40.0, duration_ms=40.0),
            replace(ENTRY, id="2", status=200, error="stream_broken", cost_pico_usd=0, ttft_ms=None, duration_ms=0.0),
            replace(ENTRY, id="3", cache="exact", input_tokens=0, cache_read_tokens=0, cache_write_tokens=0,
                    cache_write_1h_tokens=0, output_tokens=0, cost_pico_usd=0, ttft_ms=None, duration_ms=0.0),
            replace(ENTRY, id="4", status=429, input_tokens=0, cache_read_tokens=0, cache_write_tokens=0,
                    cache_write_1h_tokens=0, output_tokens=0, cost_pico_usd=None, ttft_ms=None, duration_ms=0.0),
        ]
    )  # fmt: skip
    [total] = repository.summarize("provider", **FOREVER)
    assert total.group == "openai"
    assert (total.num_requests, total.num_errors, total.num_cached, total.num_unpriced) == (5, 2, 1, 1)
    assert (total.input_tokens, total.cache_read_tokens, total.cache_write_tokens) == (3 * 17, 3 * 4, 3 * 3)
    assert total.output_tokens == 15
    assert total.cost_usd == Decimal("0.0000015")
    assert (total.mean_duration_ms, total.mean_ttft_ms) == (12.0, 5.0)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("tenant", ["beta", "acme"]),
        ("model", ["strong", "fast"]),
        ("provider", ["anthropic", "openai"]),
        ("key", ["k2", "k1"]),
        ("day", ["2026-11-23", "2026-11-24"]),
    ],
)
def test_groups_come_dearest_first_and_days_in_order_of_utc(store: Engine, by: GroupBy, expected: list[str]) -> None:
    repository = UsageRepository(store)
    midnight = DAY + timedelta(days=1)
    late = replace(ENTRY, id="1", at=midnight - timedelta(microseconds=1))
    dear = replace(
        ENTRY,
        id="2",
        at=midnight,
        tenant="beta",
        model="strong",
        provider="anthropic",
        key_id="k2",
        cost_pico_usd=10**9,
    )
    repository.add([ENTRY, late, dear])
    assert [total.group for total in repository.summarize(by, **FOREVER)] == expected


def test_every_group_is_tested() -> None:
    assert set(GROUPS) == {"tenant", "model", "provider", "key", "day"}


def test_a_summary_begins_with_since_ends_before_until_and_can_be_one_tenants(store: Engine) -> None:
    repository = UsageRepository(store)
    hours = [replace(ENTRY, id=str(hour), at=DAY + timedelta(hours=hour)) for hour in range(4)]
    repository.add([*hours, replace(hours[1], id="x", tenant="beta")])
    window = {"since": DAY + timedelta(hours=1), "until": DAY + timedelta(hours=3)}
    assert {each.group: each.num_requests for each in repository.summarize("tenant", **window)} == {
        "acme": 2,
        "beta": 1,
    }
    [total] = repository.summarize("tenant", **window, tenant="beta")
    assert (total.group, total.num_requests) == ("beta", 1)


COSTS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=8)


# The store is shared by the examples on purpose: each one empties it first.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(costs=COSTS)
def test_costs_add_up_exactly_and_never_overflow(store: Engine, costs: list[int]) -> None:
    with transaction(store) as connection:
        connection.execute(delete(usage))
    repository = UsageRepository(store)
    repository.add([replace(ENTRY, id=str(number), cost_pico_usd=cost) for number, cost in enumerate(costs)])
    [total] = repository.summarize("key", **FOREVER)
    assert total.cost_usd == Decimal(sum(costs)).scaleb(-12)
