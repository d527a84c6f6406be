"""Snapshots for property tests: every field takes its usual and its odd values."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from mlaas.router.types import (
    BalanceWeights,
    BurstLimits,
    BurstState,
    Candidate,
    EngineLoad,
    Need,
    Offer,
    Pace,
    Readiness,
    Route,
    RoutingPolicy,
    Slo,
    Snapshot,
    Target,
    TokenPrice,
)

LOCAL = (Target(provider="local", model="a"), Target(provider="local", model="b"))
PAID = (Target(provider="openai", model="c"), Target(provider="claude", model="d"))
TARGETS = (*LOCAL, *PAID)
TAGS = ("eu", "us")
TASKS = ("", "code", "chat")
FEATURES = ("tools", "vision")


def _some(rng: Random, value):
    return value if rng.random() < 0.7 else None


def _subset(rng: Random, values) -> tuple:
    return tuple(value for value in values if rng.random() < 0.4)


def _figure(rng: Random, most: float) -> float:
    """Return a number of any size up to a bound, zero and the very small among them."""
    return rng.choice([0.0, most, most * rng.random(), most * 10 ** -rng.uniform(0, 12)])


def _candidates(rng: Random, target: Target) -> list[Candidate]:
    price = TokenPrice(input_usd=_figure(rng, 1e-4), output_usd=_figure(rng, 1e-4))
    offer = Offer(
        is_external=target in PAID,
        price=_some(rng, price),
        context_tokens=rng.choice([0, 100, 100_000, 100_000]),
        max_output_tokens=rng.choice([0, 100, 100_000]),
        lacks=_subset(rng, FEATURES) if rng.random() < 0.3 else (),
        quality={task: _figure(rng, 1.0) for task in _subset(rng, TASKS)},
        residency=TAGS if rng.random() < 0.5 else _subset(rng, TAGS),
    )
    return [
        Candidate(
            target=target,
            origin=f"http://{target.model}{index}",
            readiness=Readiness.READY if rng.random() < 0.5 else rng.choice(list(Readiness)),
            num_outstanding=rng.choice([0, 1, 50]),
            num_queued=rng.choice([0, 0, 3, 50]),
            num_since_poll=rng.randint(-20, 20),
            rest_s=_figure(rng, 100.0),
            offer=offer,
            pace=_some(rng, _pace(rng)),
            engine=_some(rng, _engine(rng)) if target in LOCAL else None,
            matched_tokens=rng.choice([0, 0, 128, 1024]),
        )
        for index in range(rng.randint(1, 3) if target in LOCAL else 1)
    ]


def _pace(rng: Random) -> Pace:
    return Pace(
        num_seen=rng.randint(1, 64),
        ttft_p50_s=_figure(rng, 10.0),
        ttft_p95_s=_figure(rng, 20.0),
        ttft_idle_s=_figure(rng, 5.0),
        tokens_per_s=_figure(rng, 500.0),
        duration_s=_figure(rng, 60.0),
    )


def _engine(rng: Random) -> EngineLoad:
    return EngineLoad(num_running=rng.randint(0, 256), num_waiting=rng.choice([0, 0, 5, 500]), kv_usage=rng.random())


def _burst(rng: Random) -> BurstLimits:
    return BurstLimits(
        targets=_subset(rng, PAID) or PAID[:1],
        max_queue=_some(rng, float(rng.choice([0, 4, 50]))),
        ttft_s=_some(rng, rng.uniform(0.1, 10)),
        return_ratio=rng.uniform(0.1, 0.9),
        cold_start=rng.random() < 0.7,
    )


def make_snapshot(seed: int) -> Snapshot:
    """Return the snapshot of a seed."""
    rng = Random(seed)
    targets = tuple(rng.sample(TARGETS, rng.randint(1, len(TARGETS))))
    burst = _some(rng, _burst(rng))
    route = Route(
        model="alias",
        targets=targets,
        policy=rng.choice(list(RoutingPolicy)),
        is_alias=burst is not None or len(targets) > 1 or rng.random() < 0.5,
        weights=rng.choice([(), tuple(_figure(rng, 9.0) for _ in targets)]),
        slo=_some(rng, Slo(ttft_s=_some(rng, 1.0), tokens_per_s=_some(rng, 20.0))),
        burst=burst,
        residency=_subset(rng, TAGS) if rng.random() < 0.3 else (),
        balance=BalanceWeights(cost=rng.choice([0, 1, 3]), latency=rng.choice([0, 1, 3]), quality=rng.choice([0, 1])),
    )
    extra = tuple(each for each in burst.targets if each not in targets) if burst is not None else ()
    return Snapshot(
        route=route,
        candidates=tuple(each for target in (*targets, *extra) for each in _candidates(rng, target)),
        need=Need(
            task=rng.choice(TASKS),
            input_tokens=rng.choice([0, 50, 5000]),
            output_tokens=rng.choice([0, 50, 5000]),
            features=_subset(rng, FEATURES),
            has_budget=rng.random() < 0.8,
        ),
        now_s=_figure(rng, 1e6),
        turn=rng.randint(0, 9),
        draw=rng.random(),
        burst=BurstState(is_active=rng.random() < 0.5, calm_since_s=_some(rng, _figure(rng, 1e6))),
        is_recovering=rng.random() < 0.2,
    )


snapshots = st.integers(0, 2**32 - 1).map(make_snapshot)
"""One seed each: drawing every field by itself takes Hypothesis a hundred times as long."""
