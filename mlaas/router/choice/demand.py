"""How many replicas a local model needs, as the router sees it: what autoscaling reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlaas.router.choice.predict import num_running, num_waiting
from mlaas.router.types import Candidate, Readiness

_LIVE = (Readiness.READY, Readiness.PROBE, Readiness.DOWN, Readiness.RESTING, Readiness.EXHAUSTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What callers want of one local model.

    Attributes:
        num_replicas: live now.
        num_waiting: requests that wait in engines and in the gateway.
        num_running: requests that engines work on.
        arrivals_per_s: requests for the model, those included that overflowed elsewhere.
        num_needed: replicas that would take all of it without a queue. 0: nobody asks.
        num_queued: those of `num_waiting` that wait in the gateway.
        num_expected: requests in the system that the arrivals amount to, by Little's law; 0 while no answer was timed.
        ttft_p95_s: 95th percentile of the time to the first token, lately, at the slowest replica; None: not known.
    """

    model: str
    num_replicas: int
    num_waiting: int
    num_running: int
    arrivals_per_s: float
    num_needed: int
    num_queued: int = 0
    num_expected: float = 0.0
    ttft_p95_s: float | None = None


def demand(model: str, candidates: Sequence[Candidate], *, arrivals_per_s: float, per_replica: int) -> Demand:
    """Return the demand for one model, as one gateway replica sees it.

    The requests in the system are the greater of what is there now and, by Little's law, what arrives in the time that
    an answer takes; overflow is in the second, so a burst that others serve still calls for replicas here.

    Args:
        model: name of the local model.
        candidates: its addresses; one without an origin stands for none.
        arrivals_per_s: requests for it.
        per_replica: requests that one replica takes at a time.

    Source: J. D. C. Little, "A Proof for the Queuing Formula L = lambda W", Operations Research 9(3), 1961.
    """
    live = [each for each in candidates if each.origin and each.readiness in _LIVE]
    waiting = sum(num_waiting(each) for each in candidates)
    running = sum(num_running(each) for each in live)
    durations = [each.pace.duration_s for each in live if each.pace is not None]
    expected = arrivals_per_s * sum(durations) / len(durations) if durations else 0.0
    return Demand(
        model=model,
        num_replicas=len(live),
        num_waiting=waiting,
        num_running=running,
        arrivals_per_s=arrivals_per_s,
        num_needed=_num_needed(max(float(waiting + running), expected), arrivals_per_s, per_replica),
        num_queued=sum(each.num_queued for each in candidates),
        num_expected=expected,
        ttft_p95_s=max((each.pace.ttft_p95_s for each in live if each.pace is not None), default=None),
    )


def combine(seen: Sequence[Demand], *, per_replica: int) -> Demand:
    """Return the demand for one model as several gateway replicas see it, one of them at least.

    All ask the same engines, so of what those say the greatest counts; arrivals and what waits in the gateway are each
    replica's own, and add up. First tokens are as late as for the callers of the replica that waits longest.

    Args:
        seen: one for each gateway replica that knows the model.
        per_replica: requests that one replica of the model takes at a time.
    """
    num_queued = sum(each.num_queued for each in seen)
    waiting = num_queued + max(each.num_waiting - each.num_queued for each in seen)
    running = max(each.num_running for each in seen)
    arrivals_per_s, expected = (sum(each.arrivals_per_s for each in seen), sum(each.num_expected for each in seen))
    return Demand(
        model=seen[0].model,
        num_replicas=max(each.num_replicas for each in seen),
        num_waiting=waiting,
        num_running=running,
        arrivals_per_s=arrivals_per_s,
        num_needed=_num_needed(max(float(waiting + running), expected), arrivals_per_s, per_replica),
        num_queued=num_queued,
        num_expected=expected,
        ttft_p95_s=max((each.ttft_p95_s for each in seen if each.ttft_p95_s is not None), default=None),
    )


def _num_needed(in_system: float, arrivals_per_s: float, per_replica: int) -> int:
    num_needed = math.ceil(in_system / per_replica)
    return max(1, num_needed) if arrivals_per_s > 0 else num_needed
