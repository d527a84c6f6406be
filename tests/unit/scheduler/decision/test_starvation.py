"""The aging bound: whatever arrives, a workload that could run waits no longer than `MlaasPolicy` promises."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import MlaasPolicy
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import Gang, Grow, Move, Node, Place, Preempt, Queue, Resources, Shrink, Workload
from tests.fakes.worlds import POLICY

LONGEST_S = 600.0
"""No gang of these loads runs longer by itself."""
REVIEW_S = 120.0
ONE = (Queue("a"),)
COHORT = (
    Queue("org", guarantee=(("GPU", 12.0),)),
    Queue("a", parent="org"),
    Queue("b", parent="org", guarantee=(("GPU", 4.0),)),
    Queue("c", parent="org", borrowing_limit=(("GPU", 8.0),)),
)


class Hasty(MlaasPolicy):
    """The same policy, with a bound of an hour instead of a month."""

    aging_s = 3_600.0
    aging_turn_s = 7_200.0


class Load:
    """A cluster of 12 GPUs that is always full, and arrivals that lie about their runtime, outrank and never yield."""

    def __init__(self, seed: int, queues: tuple[Queue, ...]) -> None:
        self.rng = Random(seed)
        self.policy = Hasty()
        self.ledger = Ledger([Node(f"n{number}", Resources(gpus=4.0)) for number in range(3)], queues)
        self.leaves = ["a"] if queues is ONE else ["a", "b", "c"]
        self.part_preemptible = self.rng.choice([0.0, 0.5, 1.0])
        self.total_s: dict[str, float] = {}
        self.end_s: dict[str, float] = {}
        self.started: list[str] = []

    def arrive(self) -> None:
        """Submit something small, mostly of another tenant, with any estimate and any claim to peace."""
        rng, name = self.rng, f"w{len(self.total_s)}"
        self.total_s[name] = rng.uniform(50.0, LONGEST_S)
        workload = Workload(
            name,
            Gang(Resources(gpus=rng.choice([0.5, 1.0, 1.0, 2.0]))),
            self.ledger.now_s,
            tenant=f"t{len(self.total_s)}",
            queue=rng.choice(self.leaves),
            priority=rng.choice([0, 5, 100]),
            preemptible=rng.random() < self.part_preemptible,
            estimate_s=rng.choice([None, 1.0, self.total_s[name] / 100, self.total_s[name]]),
            min_runtime_s=rng.choice([None, 0.0, LONGEST_S]),
        )
        self.ledger.submit(workload)

    def settle(self) -> None:
        """Decide and apply until nobody yields any more."""
        for _ in range(20):
            made_room = False
            for action in decide(self.ledger.snapshot(), self.policy).actions:
                match action:
                    case Preempt():
                        self.ledger.requeue(action.workload_id)
                        del self.end_s[action.workload_id]
                        made_room = True
                    case Place():
                        progress = self.ledger.start(action.workload_id, action.placement)
                        self.started.append(action.workload_id)
                        left_s = self.total_s[action.workload_id] - progress.attained_s
                        self.end_s[action.workload_id] = self.ledger.now_s + max(left_s, 0.0)
                    case Move() | Shrink() | Grow():
                        self.ledger.resize(action.workload_id, action.placement)
            if not made_room:
                return

    def step(self, *, backlog: int) -> None:
        """Go on to the next end, or the next look; keep so many waiting."""
        self.settle()
        next_s = min([*self.end_s.values(), self.ledger.now_s + REVIEW_S])
        self.ledger.advance(next_s)
        for name in [name for name, end_s in self.end_s.items() if end_s <= next_s]:
            self.ledger.finish(name)
            del self.end_s[name]
        while len(self.ledger.pending) < backlog:
            self.arrive()


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    queues=st.sampled_from((ONE, COHORT)),
    gang=st.sampled_from((Gang(Resources(gpus=4.0), 2, 2), Gang(Resources(gpus=1.0), 8, 8), Gang(Resources(gpus=4.0)))),
    backlog=st.sampled_from((4, 10)),
)
def test_nobody_waits_longer_than_the_bound(seed: int, queues: tuple[Queue, ...], gang: Gang, backlog: int) -> None:
    load = Load(seed, queues)
    for _ in range(backlog):
        load.arrive()
    for _ in range(3):
        load.step(backlog=backlog)
    older = len(load.ledger.pending)
    load.total_s["wide"] = 5_000.0
    load.ledger.submit(Workload("wide", gang, load.ledger.now_s, queue="a", estimate_s=5_000.0))
    submitted_s, aging_s = load.ledger.now_s, load.policy.aging_s
    bound_s = aging_s + (1 + older) * (LONGEST_S + REVIEW_S)
    while "wide" not in load.started:
        load.step(backlog=backlog)
        assert load.ledger.now_s - submitted_s <= bound_s


@pytest.mark.parametrize("queues", [ONE, COHORT])
def test_without_aging_it_would_starve(queues: tuple[Queue, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The loads of this file are hard enough to show the bound."""
    monkeypatch.setattr(Hasty, "aging_s", math.inf)
    load = Load(4, queues)
    load.part_preemptible = 0.0
    for _ in range(10):
        load.arrive()
    load.settle()
    load.total_s["wide"] = 5_000.0
    load.ledger.submit(Workload("wide", Gang(Resources(gpus=4.0), 2, 2), 0.0, queue="a", estimate_s=5_000.0))
    while load.ledger.now_s < 3 * 3_600.0 + 10 * (LONGEST_S + REVIEW_S):
        load.step(backlog=10)
    assert "wide" not in load.started


def test_quota_that_others_are_guaranteed_is_theirs_even_then() -> None:
    """Who borrows leaves quota to the one that has aged; who is within its guarantee goes on as before."""
    ledger = Ledger([Node("n", Resources(gpus=12.0))], COHORT)
    ledger.submit(Workload("running", Gang(Resources(gpus=8.0)), 0.0, queue="c", preemptible=False))
    for action in decide(ledger.snapshot(), POLICY).actions:
        assert isinstance(action, Place)
        ledger.start(action.workload_id, action.placement)
    ledger.submit(Workload("old", Gang(Resources(gpus=8.0)), 0.0, queue="a"))
    ledger.advance(MlaasPolicy.aging_s + 1.0)
    ledger.submit(Workload("borrows", Gang(Resources(gpus=1.0)), ledger.now_s, queue="c", priority=100))
    ledger.submit(Workload("owns", Gang(Resources(gpus=1.0)), ledger.now_s, queue="b"))
    placed = [it.workload_id for it in decide(ledger.snapshot(), POLICY).actions if isinstance(it, Place)]
    assert placed == ["owns"]
