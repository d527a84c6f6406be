"""Retry and fallback as one generator: it yields what to do next, and is sent what came of it.

It holds the rules and no clock, no connection and no randomness, so all of it can be replayed:

- nothing is tried again once a byte of an answer has reached the caller, or when the upstream says that the request is
  wrong;
- otherwise the next address that has not failed yet is tried, within a target first, then across targets;
- when none is left and one may be back in seconds (a replica that restarts), the flow waits with jitter and looks
  again.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from mlaas.providers.base import Failure, FailureKind, ProviderFailed
from mlaas.router.decide import explain_no_target
from mlaas.router.types import Attempt, Decision, Event, Wait

_TRANSIENT = (FailureKind.REFUSED, FailureKind.CLOSED)
_MAX_DELAY_S = 0.8


@dataclass(frozen=True, kw_only=True)
class FlowLimits:
    """Bounds of one request's attempts."""

    restart_wait_s: float = 3.0
    """How long a request waits in all for a replica that is expected back. 0 never waits."""
    first_delay_s: float = 0.05
    """The first wait; each next one is twice as long, up to 0.8 s. Jitter takes off up to half."""
    max_attempts: int = 8
    """Attempts in all."""


def plan_attempts(decision: Decision, *, limits: FlowLimits, now_s: float) -> Generator[Attempt | Wait, Event, None]:
    """Yield each step of one request; the driver stops asking once an attempt succeeds.

    Args:
        decision: made when the request came in.
        limits: bounds.
        now_s: monotonic clock when the request came in.

    Yields:
        An `Attempt` to make or a `Wait` to sit out; send the `Event` that came of it.

    Raises:
        ProviderFailed: nothing is left to try; it carries what the caller gets.
    """
    failure: Failure | None = None
    failed: dict[str, FailureKind] = {}
    num_attempts, num_waits, jitter, reason = 0, 0, 0.5, ""
    give_up_s = now_s + limits.restart_wait_s
    while True:
        attempt = next((each for each in decision.attempts if _address(each) not in failed), None)
        step: Attempt | Wait
        if num_attempts == limits.max_attempts:
            raise ProviderFailed(failure or explain_no_target(decision))
        if attempt is not None:
            num_attempts += 1
            step = replace(attempt, reason=reason) if reason else attempt
        elif _may_wait(decision, failure) and now_s < give_up_s:
            delay_s = min(limits.first_delay_s * 2**num_waits, _MAX_DELAY_S) * (1 - jitter / 2)
            num_waits += 1
            step = Wait(delay_s=min(delay_s, give_up_s - now_s))
        else:
            raise ProviderFailed(failure or explain_no_target(decision))
        event = yield step
        decision, now_s, jitter = event.decision, event.now_s, event.jitter
        if attempt is None:
            failed = {address: kind for address, kind in failed.items() if kind not in _TRANSIENT}
        elif event.failure is not None:
            failure = event.failure
            reason = f"{attempt.target} failed: {failure.code}"
            failed[_address(attempt)] = failure.kind
            if event.is_committed or failure.kind is FailureKind.REJECTED:
                raise ProviderFailed(failure)


def _may_wait(decision: Decision, failure: Failure | None) -> bool:
    return decision.may_recover if failure is None else failure.kind in _TRANSIENT


def _address(attempt: Attempt) -> str:
    return f"{attempt.target} {attempt.origin}"
