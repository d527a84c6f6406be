"""Whether an address takes requests: up, down for a while, then one probe. A pure step from event to state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from mlaas.providers.base import FailureKind
from mlaas.router.types import Readiness

_FIRST_DOWN_S = 0.25
_MAX_DOWN_S = 10.0
_FAILURES_TO_DOWN = 3


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
        down_until_s: monotonic clock until which it gets no request; 0 when it is up.
        is_probed: a request is finding out whether it is back.
    """

    num_failures: int = 0
    down_until_s: float = 0.0
    is_probed: bool = False


UP = Health()


def readiness(health: Health, *, now_s: float) -> Readiness:
    """Return whether the address can take a request now."""
    if not health.down_until_s:
        return Readiness.READY
    if health.is_probed or now_s < health.down_until_s:
        return Readiness.DOWN
    return Readiness.PROBE


def step(health: Health, sign: Sign, *, now_s: float) -> Health:
    """Return the state after one sign.

    A refused connection takes an address down at once, other failures at the third in a row. It stays down for 0.25 s,
    and twice as long after each failed probe, up to 10 s: a replica that was only restarting is found soon, and a dead
    one costs little.

    Args:
        health: the state before.
        sign: what a request has shown.
        now_s: monotonic clock.
    """
    if sign is Sign.ALIVE:
        return UP
    is_half_open = bool(health.down_until_s) and now_s >= health.down_until_s
    if sign is Sign.SENT:
        return Health(
            num_failures=health.num_failures,
            down_until_s=health.down_until_s,
            is_probed=health.is_probed or is_half_open,
        )
    if sign is Sign.UNKNOWN:
        return replace(health, is_probed=False)
    if health.down_until_s and not is_half_open:
        return health
    num_failures = max(health.num_failures + 1, _FAILURES_TO_DOWN if sign is Sign.REFUSED else 0)
    if num_failures < _FAILURES_TO_DOWN:
        return Health(num_failures=num_failures)
    down_s = min(_FIRST_DOWN_S * 2 ** min(num_failures - _FAILURES_TO_DOWN, 10), _MAX_DOWN_S)
    return Health(num_failures=num_failures, down_until_s=now_s + down_s)


def sign_of(kind: FailureKind) -> Sign:
    """Return what a failed attempt says about its address."""
    if kind is FailureKind.REFUSED:
        return Sign.REFUSED
    if kind in (FailureKind.CLOSED, FailureKind.TIMEOUT, FailureKind.FAILED):
        return Sign.FAILED
    return Sign.ALIVE
