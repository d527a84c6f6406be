"""How many replicas each deployment should have. Pure, and each wish says why.

Up at once: a request that waits is late already. Down only when less would have done for the whole hold, and then to
the most that was needed within it: what comes in waves keeps the replicas of its crests. A replica that costs a
minute to start is never given back for a pause shorter than twice that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlaas.scheduler.arbitration.types import Wish, WishCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlaas.scheduler.arbitration.types import Load, Share, ShareSnapshot, ShareState

MOST_STEP = 2.0
"""A broken SLO asks for at most this many times the replicas that are ready: what a queue shows is a moment old."""
TTFT_STEP = 1.5
"""What late first tokens ask for: they do not say how much is missing."""
TTFT_SETTLE_S = 15.0
"""How long answers from before a new replica stay in the measured percentile."""
COLD_STARTS_PER_HOLD = 2.0


def decide_replicas(snapshot: ShareSnapshot) -> tuple[Wish, ...]:
    """Return the wish for each deployment, in the snapshot's order.

    Floor and ceiling always hold. Without news of the load a deployment keeps what it has.
    """
    return tuple(_wish(state, snapshot.now_s) for state in snapshot.deployments)


@dataclass(frozen=True, slots=True)
class _Need:
    num_replicas: int
    code: WishCode
    reason: str


def _wish(state: ShareState, now_s: float) -> Wish:
    share, last = state.share, state.last
    before = last.num_replicas if last is not None else share.floor
    kept = _clamp(before, share)
    raised_s = last.raised_s if last is not None else None
    if state.load is None:
        return Wish(
            name=share.name, num_replicas=kept, code=WishCode.BLIND, reason="the router does not answer",
            raised_s=raised_s,
        )  # fmt: skip
    need = max(_needs(state, state.load, now_s), key=lambda each: each.num_replicas)
    wanted = _clamp(need.num_replicas, share)
    if wanted < kept:
        return _lower(state, now_s, kept=kept, wanted=wanted)
    code, reason = need.code, need.reason
    if wanted > kept:
        raised_s = now_s
    elif kept != before:
        code, reason = WishCode.BOUNDS, f"{share.floor}..{share.ceiling} replicas are allowed, and it had {before}"
    elif code is WishCode.DEMAND and need.num_replicas <= kept:
        code = WishCode.STEADY
    return Wish(name=share.name, num_replicas=wanted, code=code, reason=reason, raised_s=raised_s)


def _lower(state: ShareState, now_s: float, *, kept: int, wanted: int) -> Wish:
    """Remember that less would do; give back once that was so for the whole hold."""
    share, last = state.share, state.last
    hold_s = max(share.hold_s, COLD_STARTS_PER_HOLD * state.cold_start_s)
    since_s, peak = now_s, wanted
    if last is not None and last.calm_since_s is not None and last.calm_since_s <= now_s and last.calm_peak < kept:
        since_s, peak = last.calm_since_s, max(wanted, last.calm_peak)
    calm_s = now_s - since_s
    raised_s = last.raised_s if last is not None else None
    if calm_s >= hold_s:
        reason = f"needed at most {peak} for {calm_s:.0f} s"
        return Wish(name=share.name, num_replicas=peak, code=WishCode.CALM, reason=reason, raised_s=raised_s)
    reason = f"needs {wanted}; keeps {kept} until that was so for {hold_s:.0f} s, now {calm_s:.0f} s"
    return Wish(
        name=share.name, num_replicas=kept, code=WishCode.HOLD, reason=reason, calm_since_s=since_s, calm_peak=peak,
        raised_s=raised_s,
    )  # fmt: skip


def _needs(state: ShareState, load: Load, now_s: float) -> Iterator[_Need]:
    """Yield what each signal calls for, bounds aside.

    What starts already is not asked for twice: a broken SLO is measured against the replicas that are ready, so the
    same queue gives the same answer while they boot.
    """
    share, ready = state.share, load.num_ready
    yield _Need(load.num_needed, WishCode.DEMAND, f"its requests keep {load.num_needed} replicas busy")
    allowed = share.queue_slo * max(1, ready)
    if load.num_waiting > allowed:
        per_replica = max(1.0, load.num_running / max(1, ready))
        lacking = math.ceil((load.num_waiting - allowed) / per_replica)
        needed = min(ready + lacking, math.ceil(MOST_STEP * max(1, ready)))
        yield _Need(
            needed, WishCode.QUEUE, f"{load.num_waiting} requests wait for {ready} replicas; {allowed:g} may"
        )  # fmt: skip
    if _is_late(state, load, now_s):
        text = f"first tokens come after {load.ttft_p95_s:.2f} s at p95; {share.ttft_slo_s:.2f} s are owed"
        yield _Need(max(ready + 1, math.ceil(TTFT_STEP * ready)), WishCode.TTFT, text)


def _is_late(state: ShareState, load: Load, now_s: float) -> bool:
    """Whether first tokens break the SLO, by answers that the last raise can have helped."""
    slo_s, last = state.share.ttft_slo_s, state.last
    if slo_s is None or load.ttft_p95_s is None or load.ttft_p95_s <= slo_s:
        return False
    if not load.num_waiting + load.num_running:
        return False
    is_settling = (
        last is not None
        and last.raised_s is not None
        and 0.0 <= now_s - last.raised_s < state.cold_start_s + TTFT_SETTLE_S
    )
    return not is_settling


def _clamp(number: int, share: Share) -> int:
    return min(max(number, share.floor), share.ceiling)
