from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.router.limits.budgets import affordable_tokens, period_of, to_nanos, to_usd

USD = st.decimals(0, 10**6, allow_nan=False, places=15)


@given(USD)
def test_money_is_rounded_up_and_by_less_than_a_nano_dollar(usd):
    assert usd <= to_usd(to_nanos(usd)) < usd + Decimal("1e-9")


@given(st.integers(0, 10**18))
def test_nano_dollars_are_exact(nanos):
    assert to_nanos(to_usd(nanos)) == nanos


@pytest.mark.parametrize(
    ("now", "per", "period", "ends"),
    [
        ((2026, 11, 23, 23, 59, 59), "day", "2026-11-23", (2026, 11, 24)),
        ((2026, 11, 24), "day", "2026-11-24", (2026, 11, 25)),
        ((2026, 12, 31, 12), "day", "2026-12-31", (2027, 1, 1)),
        ((2026, 12, 31, 12), "month", "2026-12", (2027, 1, 1)),
        ((2028, 2, 1), "month", "2028-02", (2028, 3, 1)),
    ],
)
def test_periods_are_those_of_utc(now, per, period, ends):
    ends_s = datetime(*ends, tzinfo=UTC).timestamp()
    assert period_of(datetime(*now, tzinfo=UTC).timestamp(), per) == (period, ends_s)


@given(st.integers(0, 10**9), USD.filter(lambda usd: usd < 1), st.decimals("1e-12", 1, places=12))
def test_what_is_affordable_is_covered_and_one_token_more_is_not(nanos, input_usd, usd_per_output_token):
    tokens = affordable_tokens(nanos, input_usd=input_usd, usd_per_output_token=usd_per_output_token)
    assert tokens == 0 or input_usd + tokens * usd_per_output_token <= to_usd(nanos)
    assert input_usd + (tokens + 1) * usd_per_output_token > to_usd(nanos)
