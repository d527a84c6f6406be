"""Clusters in the middle of their work, for property tests: a seed each."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from mlaas.errors import AdmissionError
from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import POLICIES, SchedulingPolicy
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import (
    Decision,
    Gang,
    Grow,
    Move,
    Node,
    Place,
    Preempt,
    Queue,
    Resources,
    Shrink,
    Strategy,
    Workload,
)
from mlaas.scheduler.validation import check_workload

LIMITED = (
    Queue("org"),
    Queue("research", parent="org", guarantee=(("GPU", 6.0),)),
    Queue("product", parent="org", guarantee=(("GPU", 4.0),), borrowing_limit=(("GPU", 3.0),)),
    Queue("guests", parent="org", lending_limit=()),
    Queue("island", guarantee=(("GPU", 2.0),)),
)
SHARED = (Queue("org"), *(Queue(name, parent="org") for name in ("research", "product", "guests", "island")))
LEAVES = ("research", "product", "guests", "island")
POLICY = POLICIES["mlaas"]


def make_gang(rng: Random) -> Gang:
    """Return any gang."""
    least = rng.choice([1, 1, 2, 3, 6])
    return Gang(
        worker=Resources(gpus=rng.choice([0.25, 0.6, 1.0, 1.0, 2.0, 4.0]), cpus=rng.choice([0.0, 1.0, 4.0])),
        min_workers=least,
        max_workers=least + rng.choice([0, 0, 1, 4]),
        strategy=rng.choice(list(Strategy)),
        topology=rng.choice([None, None, "rack"]),
        labels=rng.choice([(), (), (("accelerator", "a100"),)]),
    )


def make_workload(rng: Random, number: int, *, now_s: float) -> Workload:
    """Return any workload."""
    return Workload(
        f"w{number}",
        make_gang(rng),
        submitted_s=now_s,
        tenant=rng.choice(["ann", "bob"]),
        queue=rng.choice(LEAVES),
        name=rng.choice(["", "lm"]),
        priority=rng.choice([0, 0, 0, 5]),
        preemptible=rng.random() < 0.8,
        estimate_s=rng.choice([None, 60.0, 300.0, 1e4]),
        deadline_s=rng.choice([None, None, now_s + 1e3]),
        min_runtime_s=rng.choice([None, 0.0, 120.0]),
        restart_cost_s=rng.choice([0.0, 60.0]),
    )


def make_ledger(seed: int, *, policy: SchedulingPolicy = POLICY) -> Ledger:
    """Return the world of a seed: some waits, some runs, some has ended, something runs outside."""
    rng = Random(seed)
    nodes = [
        Node(
            f"n{number}",
            Resources(gpus=rng.choice([4, 4, 8]), cpus=16.0),
            labels=(("accelerator", rng.choice(["a100", "h100"])), ("rack", f"r{number % 2}")),
            schedulable=rng.random() < 0.9,
        )
        for number in range(rng.randint(2, 5))
    ]
    ledger = Ledger(nodes, rng.choice([LIMITED, SHARED]))
    ledger.advance(rng.uniform(1e3, 2e9))
    if rng.random() < 0.3:
        ledger.occupy({nodes[0].name: Resources(gpus=rng.choice([0.5, 1.0]), cpus=2.0)})
    for number in range(rng.randint(2, 14)):
        workload = make_workload(rng, number, now_s=ledger.now_s)
        try:
            check_workload(workload, cluster=ledger.cluster, queues=LEAVES)
        except AdmissionError:
            continue
        ledger.submit(workload)
        if rng.random() < 0.5:
            apply(ledger, decide(ledger.snapshot(), policy))
        if rng.random() < 0.5:
            ledger.advance(ledger.now_s + rng.choice([1.5, 200.0, 5_000.0, 1e6]))
        if len(ledger.running) and rng.random() < 0.2:
            ledger.finish(rng.choice(ledger.running.ids))
    return ledger


def apply(ledger: Ledger, decision: Decision) -> None:
    """Carry a decision out at once."""
    for action in decision.actions:
        match action:
            case Preempt():
                ledger.requeue(action.workload_id)
            case Place():
                ledger.start(action.workload_id, action.placement)
            case Shrink() | Grow() | Move():
                ledger.resize(action.workload_id, action.placement)


ledgers = st.integers(0, 2**32 - 1).map(make_ledger)
"""One seed each: drawing every field by itself takes Hypothesis a hundred times as long."""
