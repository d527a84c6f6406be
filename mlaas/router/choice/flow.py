"""Retry, fallback and hedging as one generator: it yields what to do next, and is sent what came of it.

It holds the rules and no clock, no connection and no randomness, so all of it can be replayed:

- nothing is tried again once a byte of an answer has reached the caller, or when the upstream says that the request is
  wrong;
- otherwise the next address that has not failed yet is tried, within a target first, then across targets. Moving on to
  another target is free. Asking a target again that has received this request is a retry, and only made when the
  gateway's retry budget has something left; where no connection came about, nothing was received;
- when none is left and one may be back in seconds, the flow waits with jitter and looks again: a replica that restarts
  is asked again and again, an upstream that failed once more, an overloaded one after the time it asked for. The waits
  are no longer than `restart_wait_s` in all: an upstream that asks for more is the caller's to wait for;
- an account without money, a key that is not accepted, a request that timed out, and an overload without a
  `retry-after` are not tried again at that address;
- when an attempt is silent for the route's `hedge_after_s`, one more address is asked beside it.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field, replace

from mlaas.providers.base import Failure, FailureKind, ProviderFailed
from mlaas.router.choice.decide import explain_no_target
from mlaas.router.types import Attempt, Decision, Event, Hedge, Wait

Step = Attempt | Hedge | Wait
_MAX_DELAY_S = 0.8


@dataclass(frozen=True, kw_only=True)
class FlowLimits:
    """Bounds of one request's attempts."""

    restart_wait_s: float = 3.0
    """How long a request waits in all for an address that is expected back. 0 never waits."""
    first_delay_s: float = 0.05
    """The first wait; each next one is twice as long, up to 0.8 s. Jitter takes off up to half."""
    max_attempts: int = 8
    """Attempts in all, hedges included; a route may say otherwise."""


@dataclass(slots=True)
class _Past:
    """What one request has gone through."""

    give_up_s: float
    back_at_s: dict[tuple[str, str], float] = field(default_factory=dict)
    """By address that has failed: when it may be asked again."""
    num_failures: dict[tuple[str, str], int] = field(default_factory=dict)
    receivers: set[str] = field(default_factory=set)
    """Targets that have received the request."""
    last: Failure | None = None
    reason: str = ""
    num_attempts: int = 0
    num_waits: int = 0
    jitter: float = 0.5
    now_s: float = 0.0
    may_retry: bool = True

    def add(self, attempt: Attempt, failure: Failure, *, now_s: float) -> None:
        """Take note of a failed attempt."""
        address = _address(attempt)
        self.num_failures[address] = self.num_failures.get(address, 0) + 1
        self.back_at_s[address] = now_s + _pause_s(failure, self.num_failures[address])
        if failure.kind is not FailureKind.REFUSED:
            self.receivers.add(str(attempt.target))
        self.last = failure
        if failure.kind is FailureKind.UNFIT and failure.param is not None:
            self.reason = f"{attempt.target} cannot take {failure.param!r}"
        else:
            self.reason = f"{attempt.target} failed: {failure.code}"

    def forget(self, *, now_s: float) -> None:
        """Let addresses be asked again whose time has come."""
        self.back_at_s = {address: at_s for address, at_s in self.back_at_s.items() if at_s > now_s}


def plan_attempts(decision: Decision, *, limits: FlowLimits, now_s: float) -> Generator[Step, Event, None]:
    """Yield each step of one request; the driver stops asking once an attempt succeeds.

    Args:
        decision: made when the request came in.
        limits: bounds.
        now_s: monotonic clock when the request came in.

    Yields:
        An `Attempt` to make, a `Hedge` to make beside the attempt before it, or a `Wait` to sit out; send the `Event`
        that came of it.

    Raises:
        ProviderFailed: nothing is left to try; it carries what the caller gets.
    """
    past = _Past(give_up_s=now_s + limits.restart_wait_s, now_s=now_s)
    max_attempts = decision.route.max_attempts or limits.max_attempts
    while True:
        attempt = _next(decision, past)
        if past.num_attempts >= max_attempts or (attempt is None and not _may_wait(decision, past)):
            raise ProviderFailed(past.last or explain_no_target(decision))
        if attempt is None:
            event = yield _wait(past, limits)
            past.forget(now_s=event.now_s)
        else:
            past.num_attempts += 1
            hedge = _hedge(decision, attempt, past) if past.num_attempts < max_attempts else None
            after_s = decision.route.hedge_after_s if hedge is not None else None
            event = yield replace(attempt, hedge_after_s=after_s) if after_s is not None else attempt
            if event.is_slow and hedge is not None:
                past.num_attempts += 1
                event = yield Hedge(attempt=hedge)
            _learn(past, event, attempt, hedge)
        decision = event.decision
        past.now_s, past.jitter, past.may_retry = event.now_s, event.jitter, event.may_retry


def _learn(past: _Past, event: Event, attempt: Attempt, hedge: Attempt | None) -> None:
    """Take note of what failed.

    Raises:
        ProviderFailed: another attempt is not allowed, or cannot help.
    """
    if event.hedge_failure is not None and hedge is not None:
        past.add(hedge, event.hedge_failure, now_s=event.now_s)
    if event.failure is not None:
        past.add(attempt, event.failure, now_s=event.now_s)
    for failure in (event.failure, event.hedge_failure):
        if failure is not None and (event.is_committed or failure.kind is FailureKind.REJECTED):
            raise ProviderFailed(failure)


def _next(decision: Decision, past: _Past) -> Attempt | None:
    """Return the best address that has not failed and may be asked; the reason tells what failed before it."""
    for attempt in decision.attempts:
        if _address(attempt) in past.back_at_s:
            continue
        is_retry = str(attempt.target) in past.receivers
        if is_retry and not past.may_retry:
            continue
        return replace(attempt, reason=past.reason, is_retry=is_retry) if past.reason else attempt
    return None


def _hedge(decision: Decision, first: Attempt, past: _Past) -> Attempt | None:
    """Return the address to ask beside a slow one; it counts as a retry, whatever its target."""
    if decision.route.hedge_after_s is None or not past.may_retry:
        return None
    for attempt in decision.attempts:
        if _address(attempt) != _address(first) and _address(attempt) not in past.back_at_s:
            reason = f"{first.target} is silent for {decision.route.hedge_after_s:g} s"
            return replace(attempt, reason=reason, is_retry=True)
    return None


def _may_wait(decision: Decision, past: _Past) -> bool:
    """Return whether something may be back before the request gives up."""
    if past.now_s >= past.give_up_s:
        return False
    if not past.back_at_s:
        return decision.may_recover
    return any(
        at_s < past.give_up_s and (past.may_retry or address[0] not in past.receivers)
        for address, at_s in past.back_at_s.items()
    )


def _wait(past: _Past, limits: FlowLimits) -> Wait:
    """Return the pause: doubling with jitter, not before the first address may be asked again, not beyond the end."""
    delay_s = min(limits.first_delay_s * 2**past.num_waits, _MAX_DELAY_S) * (1 - past.jitter / 2)
    past.num_waits += 1
    delay_s = max(delay_s, min(past.back_at_s.values(), default=0.0) - past.now_s)
    return Wait(delay_s=min(delay_s, past.give_up_s - past.now_s))


def _pause_s(failure: Failure, num_failures: int) -> float:
    """Return how long an address is let alone after a failure; infinite when it is not asked again."""
    if failure.kind in (FailureKind.REFUSED, FailureKind.CLOSED):
        return 0.0
    if failure.kind is FailureKind.FAILED and num_failures < 2:
        return 0.0
    if failure.kind is FailureKind.OVERLOADED and failure.retry_after_s is not None:
        return failure.retry_after_s
    return math.inf


def _address(attempt: Attempt) -> tuple[str, str]:
    return str(attempt.target), attempt.origin
