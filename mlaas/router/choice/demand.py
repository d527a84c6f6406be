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
        num_waiting: requests that wait in engines and in this gateway replica.
        num_running: requests that engines work on.
        arrivals_per_s: requests for the model, those included that overflowed elsewhere.
        num_needed: replicas that would take all of it without a queue. 0: nobody asks.
        ttft_p95_s: 95th percentile of the time to the first token, lately, at the slowest replica; None: not known.
    """

    model: str
    num_replicas: int
    num_waiting: int
    num_running: int
    arrivals_per_s: float
    num_needed: int
    ttft_p95_s: float | None = None


def demand(model: str, candidates: Sequence[Candidate], *, arrivals_per_s: float, per_replica: int) -> Demand:
    """Return the demand for one model.

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
    in_system = max(float(waiting + running), expected)
    num_needed = math.ceil(in_system / per_replica)
    if arrivals_per_s > 0:
        num_needed = max(1, num_needed)
    return Demand(
        model=model,
        num_replicas=len(live),
        num_waiting=waiting,
        num_running=running,
        arrivals_per_s=arrivals_per_s,
        num_needed=num_needed,
        ttft_p95_s=max((each.pace.ttft_p95_s for each in live if each.pace is not None), default=None),
    )
