"""Whether an address takes requests: a circuit breaker as a pure step from event to state.

Closed is `READY`, open is `DOWN`, half-open is `PROBE`: one request may find out. Beside the breaker an address may
rest, because it asked for it (`retry-after`) or because its account is out of money: that is no sign of ill health.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from mlaas.providers.base import Failure, FailureKind
from mlaas.router.types import Readiness

_FIRST_DOWN_S = 0.25
_MAX_DOWN_S = 10.0
_FAILURES_TO_DOWN = 3
_MAX_ERROR_RATE = 0.5
_ERROR_RATE_STEP = 0.1
_NO_ERROR_RATE = 0.02
_QUOTA_REST_S = 300.0
_MAX_REST_S = 3600.0


class Sign(StrEnum):
    """What a request says about the address that it went to."""

    SENT = "sent"
    ALIVE = "alive"
    """It answered, be it with an error that is not its own fault."""
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The caller left before there was an answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """One address.

    Attributes:
        num_failures: failures since it last answered.
        error_rate: moving average of failures over the last answers, about twenty.
        down_until_s: monotonic clock until which it gets no request; 0 when it is up.
        is_probed: a request is finding out whether it is back.
        rest_until_s: monotonic clock until which it rests; 0 when it does not.
        is_exhausted: it rests because its account is out of money.
    """

    num_failures: int = 0
    error_rate: float = 0.0
    down_until_s: float = 0.0
    is_probed: bool = False
    rest_until_s: float = 0.0
    is_exhausted: bool = False


UP = Health()


def readiness(health: Health, *, now_s: float) -> Readiness:
    """Return whether the address can take a request now."""
    if now_s < health.rest_until_s:
        return Readiness.EXHAUSTED if health.is_exhausted else Readiness.RESTING
    if not health.down_until_s:
        return Readiness.READY
    if health.is_probed or now_s < health.down_until_s:
        return Readiness.DOWN
    return Readiness.PROBE


def step(health: Health, sign: Sign, *, now_s: float) -> Health:
    """Return the state after one sign.

    An address goes down at once when it refuses a connection, and otherwise at the third failure in a row or when half
    of its last answers failed. It stays down for 0.25 s, and twice as long after each failed probe, up to 10 s: a
    replica that was only restarting is found soon, and a dead one costs little.

    Args:
        health: the state before.
        sign: what a request has shown.
        now_s: monotonic clock.
    """
    if sign is Sign.ALIVE:
        return _answered(health, now_s)
    is_half_open = bool(health.down_until_s) and now_s >= health.down_until_s
    if sign is Sign.SENT:
        return replace(health, is_probed=True) if is_half_open and not health.is_probed else health
    if sign is Sign.UNKNOWN:
        return replace(health, is_probed=False) if health.is_probed else health
    if health.down_until_s and not is_half_open:
        return health
    error_rate = health.error_rate + _ERROR_RATE_STEP * (1 - health.error_rate)
    num_failures = health.num_failures + 1
    if sign is Sign.REFUSED or error_rate >= _MAX_ERROR_RATE:
        num_failures = max(num_failures, _FAILURES_TO_DOWN)
    if num_failures < _FAILURES_TO_DOWN:
        return replace(health, num_failures=num_failures, error_rate=error_rate)
    down_s = min(_FIRST_DOWN_S * 2 ** min(num_failures - _FAILURES_TO_DOWN, 10), _MAX_DOWN_S)
    return replace(
        health, num_failures=num_failures, error_rate=error_rate, down_until_s=now_s + down_s, is_probed=False
    )


def rest(health: Health, failure: Failure, *, now_s: float) -> Health:
    """Return the state after a failure that asks for a rest; the same state when it does not.

    A 429, 503 or 529 with `retry-after` rests for that long, an hour at most. An account without money rests for five
    minutes at least: nothing but a person helps, and each try is a request for nothing.
    """
    is_exhausted = failure.kind is FailureKind.QUOTA
    rest_s = min(failure.retry_after_s or 0.0, _MAX_REST_S)
    if is_exhausted:
        rest_s = max(rest_s, _QUOTA_REST_S)
    if not rest_s or failure.kind not in (FailureKind.QUOTA, FailureKind.OVERLOADED):
        return health
    return replace(health, rest_until_s=max(now_s + rest_s, health.rest_until_s), is_exhausted=is_exhausted)


def sign_of(kind: FailureKind) -> Sign:
    """Return what a failed attempt says about its address."""
    if kind is FailureKind.REFUSED:
        return Sign.REFUSED
    if kind in (FailureKind.CLOSED, FailureKind.TIMEOUT, FailureKind.FAILED):
        return Sign.FAILED
    return Sign.ALIVE


def _answered(health: Health, now_s: float) -> Health:
    error_rate = health.error_rate * (1 - _ERROR_RATE_STEP)
    is_resting = now_s < health.rest_until_s
    if health.down_until_s or error_rate < _NO_ERROR_RATE:
        return replace(UP, rest_until_s=health.rest_until_s, is_exhausted=health.is_exhausted) if is_resting else UP
    return replace(health, num_failures=0, error_rate=error_rate)
