"""Prices: exact, as genai-prices has them, never above the bound, and those of a local machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TimeOfDateConstraint
from genai_prices.types import Usage as ListUsage
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.base import Usage
from mlaas.router.config import PriceConfig
from mlaas.router.money.local_prices import IDLE_SHARE, INPUT_WEIGHT, MIN_TOKENS_PER_S, LocalPrices, local_price
from mlaas.router.money.prices import PriceBook
from mlaas.router.money.rates import Card, Rates, to_pico_usd, to_usd
from mlaas.router.money.vendor_prices import VENDORS, list_price
from mlaas.router.types import Target

NOW_S = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
MINI = Target(provider="openai", model="gpt-5-mini")
SOL = Target(provider="openai", model="gpt-6-sol")
HAIKU = Target(provider="claude", model="claude-haiku-5-5")
HOUSE = Target(provider="house", model="m")
LOCAL = Target(provider="local", model="tiny")

TOKENS = st.integers(0, 400_000)
USAGES = st.builds(
    Usage,
    input_tokens=TOKENS,
    cache_read_tokens=TOKENS,
    cache_write_tokens=TOKENS,
    cache_write_1h_tokens=TOKENS,
    output_tokens=TOKENS,
)


def book(own: dict[str, list[PriceConfig]] | None = None, hours: dict[str, Decimal] | None = None) -> PriceBook:
    return PriceBook(
        kinds={"openai": "openai", "claude": "anthropic", "xai": "xai", "house": "openai_compatible"},
        own=own or {},
        local=LocalPrices(hours or {}),
    )


def price(read: str, written: str, **more: object) -> PriceConfig:
    return PriceConfig.model_validate({"input_usd_per_mtok": read, "output_usd_per_mtok": written, **more})


MODELS = [
    (kind, model)
    for kind, vendor in VENDORS.items()
    for provider in get_snapshot().providers
    if provider.id == vendor
    for model in provider.models
]


@given(
    where=st.sampled_from(MODELS),
    usage=USAGES,
    day=st.dates(date(2025, 1, 1), date(2028, 1, 1)).map(
        lambda day: datetime(day.year, day.month, day.day, tzinfo=UTC)
    ),
)
def test_a_list_price_costs_what_genai_prices_calculates(where, usage, day):
    kind, model = where
    card = list_price(kind, model.id, at=day)
    if card is None:
        return
    expected = model.get_prices(day).calc_price(
        ListUsage(
            input_tokens=usage.prompt_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens + usage.cache_write_1h_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            output_tokens=usage.output_tokens,
            cache_audio_read_tokens=0,
            input_audio_tokens=0,
            output_audio_tokens=0,
            input_image_tokens=0,
            output_image_tokens=0,
            cache_image_read_tokens=0,
            input_video_tokens=0,
            output_video_tokens=0,
        )
    )
    assert to_usd(card.cost(usage)) == expected["total_price"]


def test_no_list_price_depends_on_the_hour_so_that_one_lookup_serves_a_day():
    constraints = [
        each.constraint
        for _, model in MODELS
        for each in ([] if isinstance(model.prices, ModelPrice) else model.prices)
    ]
    assert constraints
    assert not [each for each in constraints if isinstance(each, TimeOfDateConstraint)]


@given(
    target=st.sampled_from([MINI, SOL, HAIKU, LOCAL]),
    usage=USAGES,
    slack=st.tuples(TOKENS, TOKENS),
    service_tier=st.sampled_from(["", "priority", "flex", "fast", "nonsense"]),
)
def test_a_cost_within_the_bounded_tokens_is_within_the_bound(target, usage, slack, service_tier):
    prices = book(hours={"default": Decimal("1.2")})
    bound = prices.bound(
        target,
        input_tokens=usage.prompt_tokens + slack[0],
        at_s=NOW_S,
        service_tier=service_tier,
    )
    cost = prices.cost(target, usage, at_s=NOW_S, service_tier=service_tier)
    assert bound is not None
    assert cost is not None
    assert 0 <= cost <= bound.prompt_usd + (usage.output_tokens + slack[1]) * bound.usd_per_output_token


@given(
    usage=USAGES,
    more=st.sampled_from(["input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens"]),
    count=st.integers(1, 10_000),
    target=st.sampled_from([MINI, SOL, HAIKU]),
)
def test_more_tokens_never_cost_less(usage, more, count, target):
    prices = book()
    larger = replace(usage, **{more: getattr(usage, more) + count})
    assert prices.cost(target, larger, at_s=NOW_S) >= prices.cost(target, usage, at_s=NOW_S)


@given(usages=st.lists(USAGES, max_size=20))
def test_costs_add_up_exactly(usages):
    prices = book()
    whole = Usage(
        **{
            field: sum(getattr(usage, field) for usage in usages)
            for field in ("input_tokens", "cache_read_tokens", "output_tokens")
        }
    )
    parts = [
        prices.cost(
            MINI,
            Usage(
                input_tokens=usage.input_tokens,
                cache_read_tokens=usage.cache_read_tokens,
                output_tokens=usage.output_tokens,
            ),
            at_s=NOW_S,
        )
        for usage in usages
    ]
    assert sum(parts, Decimal(0)) == prices.cost(MINI, whole, at_s=NOW_S)


def test_a_request_over_the_step_is_charged_at_its_rates_as_a_whole():
    prices = book()
    below = prices.cost(SOL, Usage(input_tokens=272_000), at_s=NOW_S)
    above = prices.cost(SOL, Usage(input_tokens=272_001), at_s=NOW_S)
    assert below == Decimal("0.544")
    assert above == Decimal("1.088004")


def test_a_price_of_the_operators_own_goes_before_the_list_and_begins_on_its_day():
    prices = book({"openai/gpt-5-mini": [price("3", "4", **{"from": date(2026, 11, 23)}), price("1", "2")]})
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    assert prices.cost(MINI, usage, at_s=NOW_S) == 7
    assert prices.cost(MINI, usage, at_s=NOW_S - 86_400) == 3


def test_an_own_price_may_have_steps_for_longer_prompts():
    steps = [
        {"above_tokens": above, "input_usd_per_mtok": read, "output_usd_per_mtok": "9", "cache_read_usd_per_mtok": "1"}
        for above, read in ((200_000, "8"), (100_000, "4"))
    ]
    prices = book({"house/m": [price("2", "3", steps=steps)]})
    tokens = (100_000, 100_001, 200_001)
    costs = [prices.cost(HOUSE, Usage(input_tokens=count), at_s=NOW_S) for count in tokens]
    assert costs == [Decimal("0.2"), Decimal("0.400004"), Decimal("1.600008")]
    cached = Usage(input_tokens=100_000, cache_read_tokens=100_000, output_tokens=1_000_000)
    assert prices.cost(HOUSE, cached, at_s=NOW_S) == Decimal("9.5")


def test_an_own_price_that_has_not_begun_leaves_the_list_price():
    prices = book({"openai/gpt-5-mini": [price("3", "4", **{"from": date(2027, 1, 1)})]})
    assert prices.cost(MINI, Usage(input_tokens=1_000_000), at_s=NOW_S) == Decimal("0.25")


def test_cache_tokens_cost_as_input_where_the_operator_does_not_say():
    usage = Usage(cache_read_tokens=1_000_000, cache_write_tokens=1_000_000)
    assert book({"house/m": [price("2", "9")]}).cost(HOUSE, usage, at_s=NOW_S) == 4
    own = price("2", "9", cache_read_usd_per_mtok="0.5", cache_write_usd_per_mtok="3")
    assert book({"house/m": [own]}).cost(HOUSE, usage, at_s=NOW_S) == Decimal("3.5")


def test_what_the_provider_billed_wins_and_its_drift_from_the_table_is_kept():
    prices = book()
    usage = Usage(input_tokens=1_000_000, reported_cost_usd=Decimal("0.3"))
    assert prices.cost(MINI, usage, at_s=NOW_S) == Decimal("0.3")
    prices.cost(HOUSE, usage, at_s=NOW_S)
    assert prices.drift() == pytest.approx({"openai": 1.2})


def test_a_billed_cost_counts_without_a_price_too():
    usage = Usage(reported_cost_usd=Decimal("0.0000000000016"))
    assert book().cost(HOUSE, usage, at_s=NOW_S) == Decimal("0.000000000002")


def test_a_faster_service_tier_costs_its_own_price():
    usage = Usage(input_tokens=1_000_000)
    cost = {tier: book().cost(SOL, usage, at_s=NOW_S, service_tier=tier) for tier in ("", "auto", "flex", "priority")}
    assert cost["flex"] < cost[""] == cost["auto"] < cost["priority"]


def test_targets_without_a_price_are_named_once():
    prices = book({"house/m": [price("1", "1")]})
    unknown = Target(provider="openai", model="no-such-model")
    targets = [MINI, HOUSE, unknown, LOCAL, unknown, Target(provider="house", model="n")]
    assert prices.unpriced(targets, at_s=NOW_S) == (unknown, LOCAL, Target(provider="house", model="n"))
    assert prices.cost(unknown, Usage(input_tokens=5), at_s=NOW_S) is None
    assert prices.bound(unknown, input_tokens=5, at_s=NOW_S) is None
    assert prices.per_token(unknown, at_s=NOW_S) is None


def test_names_that_callers_make_up_do_not_fill_the_memory():
    prices = book()
    for number in range(5000):
        prices.cost(Target(provider="house", model=f"m{number}"), Usage(), at_s=NOW_S)
    assert len(prices._cards) <= 4096


def test_prices_per_token_are_in_dollars():
    assert book().per_token(MINI, at_s=NOW_S) == pytest.approx((0.25e-6, 2e-6))


@given(
    hour=st.decimals("0.1", "100", places=2),
    written=st.floats(MIN_TOKENS_PER_S, 50_000),
    read=st.floats(0, 50_000),
)
def test_an_hour_of_tokens_at_the_measured_rate_costs_an_hour_of_the_machine(hour, written, read):
    local = LocalPrices({"tiny": hour})
    local.observe("tiny", output_tokens_per_s=written, input_tokens_per_s=read)
    usage = Usage(input_tokens=round(read * 3600), output_tokens=round(written * 3600))
    cost = float(to_usd(local.card("tiny").cost(usage)))
    assert cost == pytest.approx(float(hour), rel=0.01)


def test_an_idle_machine_is_priced_as_a_quarter_used_and_never_beyond_the_floor():
    local = LocalPrices({"default": Decimal("3.6")})
    assert local.card("tiny") == local_price(Decimal("3.6"), tokens_per_s=MIN_TOKENS_PER_S)
    local.observe("tiny", output_tokens_per_s=4000.0, num_replicas=2)
    assert local.card("tiny") == local_price(Decimal("3.6"), tokens_per_s=2000.0)
    for _ in range(100):
        local.observe("tiny", output_tokens_per_s=0.0)
    assert local.card("tiny") == local_price(Decimal("3.6"), tokens_per_s=2000.0 * IDLE_SHARE)


def test_a_dearer_machine_reprices_what_was_measured():
    local = LocalPrices({"default": Decimal(1)})
    local.observe("tiny", output_tokens_per_s=1000.0)
    cheap = local.card("tiny")
    local.configure({"tiny": Decimal(2)})
    assert local.card("tiny") == local_price(Decimal(2), tokens_per_s=1000.0) != cheap
    local.configure({})
    assert local.card("tiny") is None


def test_a_local_model_has_no_price_without_its_machines():
    assert LocalPrices({"other": Decimal(1)}).card("tiny") is None


def test_a_local_prompt_token_costs_a_fifth_of_a_written_one():
    rates = local_price(Decimal("3.6"), tokens_per_s=1000.0).base
    assert rates.output == to_pico_usd(Decimal("0.000001"))
    assert rates.input == rates.output * INPUT_WEIGHT


def test_reasoning_at_a_price_of_its_own_is_not_charged_twice():
    rates = Rates(input=1, cache_read=1, cache_write=1, cache_write_1h=1, output=8, reasoning=3)
    assert Card(base=rates).cost(Usage(output_tokens=10, reasoning_tokens=4)) == 6 * 8 + 4 * 3
