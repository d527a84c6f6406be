from decimal import Decimal

import pytest

from mlaas.auth.limits import parse_limits
from mlaas.auth.types import UNLIMITED, KeyLimits
from mlaas.errors import ConfigError


def test_what_is_left_out_is_unlimited() -> None:
    assert parse_limits() == UNLIMITED
    assert not UNLIMITED.is_metered


@pytest.mark.parametrize(
    "limits",
    [KeyLimits(rpm=1), KeyLimits(tpm=1), KeyLimits(concurrency=1), KeyLimits(budget_usd=Decimal(1), budget_per="day")],
)
def test_any_limit_has_to_be_counted(limits: KeyLimits) -> None:
    assert limits.is_metered


def test_models_and_priority_alone_need_no_counting() -> None:
    assert not KeyLimits(models=("fast",), priority=3).is_metered


def test_all_limits_are_read() -> None:
    assert parse_limits(
        models=" fast, smart,fast",
        rpm=1,
        tpm=10**12,
        concurrency=2,
        budget_usd="0.000000001",
        budget_per="month",
        priority=-1,
    ) == KeyLimits(
        models=("fast", "smart"),
        rpm=1,
        tpm=10**12,
        concurrency=2,
        budget_usd=Decimal("0.000000001"),
        budget_per="month",
        priority=-1,
    )


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"rpm": 0}, "bad_rpm", r"rpm=0 .*from 1 to"),
        ({"rpm": -1}, "bad_rpm", r"rpm=-1 .*from 1 to"),
        ({"tpm": 10**12 + 1}, "bad_tpm", r"tpm=1000000000001 .*from 1 to"),
        ({"concurrency": 0}, "bad_concurrency", r"concurrency=0 .*from 1 to"),
        ({"priority": 2**31}, "bad_priority", r"priority=2147483648 .*32 bits"),
        ({"budget_usd": "5"}, "bad_budget", r"budget_usd=5 has no per.*--per day"),
        ({"budget_per": "day"}, "bad_budget", r"per='day' has no budget_usd.*--budget-usd"),
        ({"budget_usd": "5", "budget_per": "year"}, "bad_budget", r"per='year'.*day, month"),
        ({"budget_usd": "much", "budget_per": "day"}, "bad_budget", r"budget_usd='much' is not a number"),
        ({"budget_usd": "NaN", "budget_per": "day"}, "bad_budget", r"budget_usd=NaN is not between"),
        ({"budget_usd": "Infinity", "budget_per": "day"}, "bad_budget", r"budget_usd=Infinity is not between"),
        ({"budget_usd": "0", "budget_per": "day"}, "bad_budget", r"budget_usd=0 is not between"),
        ({"budget_usd": "-1", "budget_per": "day"}, "bad_budget", r"budget_usd=-1 is not between"),
        ({"budget_usd": "1000000001", "budget_per": "day"}, "bad_budget", r"is not between"),
        ({"budget_usd": "1e-10", "budget_per": "day"}, "bad_budget", r"more than 9 decimal places"),
        ({"budget_usd": "1e-999999", "budget_per": "day"}, "bad_budget", r"more than 9 decimal places"),
        ({"models": "a,,b"}, "bad_models", r"models='a,,b'.*--models fast,smart"),
        ({"models": ""}, "bad_models", r"models=''"),
    ],
)
def test_a_bad_limit_is_refused_with_its_value_and_the_way_out(fields: dict, code: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        parse_limits(**fields)
    assert refused.value.code == code
