"""What holds for every decision, whatever the cluster, the queues and the order of events."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlaas.errors import AdmissionError
from mlaas.scheduler.cluster import UNIT
from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import POLICIES
from mlaas.scheduler.estimates import outlook
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.snapshot import Snapshot
from mlaas.scheduler.tables import is_protected
from mlaas.scheduler.types import (
    Gang,
    Grow,
    Move,
    Node,
    Place,
    Preempt,
    Queue,
    Reserve,
    Resources,
    Shrink,
    Strategy,
    Workload,
)
from mlaas.scheduler.validation import check_queues, check_workload

KINDS = ("a100", "h100")
QUEUES = (
    Queue("org"),
    Queue("research", parent="org", guarantee=(("GPU", 6.0),)),
    Queue("product", parent="org", guarantee=(("GPU", 4.0),), borrowing_limit=(("GPU", 3.0),)),
    Queue("guests", parent="org", lending_limit=()),
    Queue("island", guarantee=(("GPU", 2.0),)),
)
SHARED = (Queue("org"), *(Queue(name, parent="org") for name in ("research", "product", "guests", "island")))
LEAVES = ("research", "product", "guests", "island")


@st.composite
def nodes(draw: st.DrawFn) -> list[Node]:
    count = draw(st.integers(2, 5))
    sizes = [draw(st.sampled_from((4, 4, 8))) for _ in range(count)]
    return [
        Node(
            f"n{number}",
            Resources(gpus=size, cpus=16.0),
            labels=(("accelerator", draw(st.sampled_from(KINDS))), ("rack", f"r{number % 2}")),
        )
        for number, size in enumerate(sizes)
    ]


@st.composite
def gangs(draw: st.DrawFn) -> Gang:
    least = draw(st.integers(1, 6))
    return Gang(
        worker=Resources(
            gpus=draw(st.sampled_from((0.25, 0.4, 0.6, 1.0, 1.0, 2.0, 4.0))),
            cpus=draw(st.sampled_from((0.0, 1.0, 4.0))),
        ),
        min_workers=least,
        max_workers=least + draw(st.sampled_from((0, 0, 1, 4))),
        strategy=draw(st.sampled_from(Strategy)),
        topology=draw(st.sampled_from((None, None, "rack"))),
        labels=draw(st.sampled_from(((), (), (("accelerator", "a100"),)))),
    )


class Life(RuleBasedStateMachine):
    """Submissions, ends, cancellations and decisions in any order."""

    @initialize(nodes=nodes(), policy=st.sampled_from(sorted(POLICIES)), queues=st.sampled_from((QUEUES, SHARED)))
    def begin(self, nodes: list[Node], policy: str, queues: tuple[Queue, ...]) -> None:
        self.ledger = Ledger(nodes, queues)
        self.policy = POLICIES[policy]
        self.count = 0

    @rule(
        gang=gangs(),
        queue=st.sampled_from(LEAVES),
        priority=st.sampled_from((0, 0, 0, 5)),
        estimate_s=st.sampled_from((None, 1.0, 300.0, 1e5)),
        preemptible=st.booleans(),
        deadline_s=st.sampled_from((None, None, 1e4)),
    )
    def submit(self, gang, queue, priority, estimate_s, preemptible, deadline_s) -> None:
        self.count += 1
        workload = Workload(
            f"w{self.count}",
            gang,
            submitted_s=self.ledger.now_s,
            queue=queue,
            priority=priority,
            estimate_s=estimate_s,
            preemptible=preemptible,
            deadline_s=deadline_s,
            restart_cost_s=60.0,
            min_runtime_s=120.0,
        )
        try:
            check_workload(workload, cluster=self.ledger.cluster, queues=LEAVES)
        except AdmissionError:
            return
        self.ledger.submit(workload)

    @rule(lost=st.booleans(), position=st.integers(0, 4))
    def a_node_is_lost_or_drained_and_another_comes(self, lost: bool, position: int) -> None:
        """What lay on a lost node is requeued, as the live scheduler does it."""
        self.count += 1
        nodes = list(self.ledger.cluster.nodes)
        gone = nodes.pop(position % len(nodes))
        fresh = replace(gone, name=f"n{self.count}-new", schedulable=True)
        self.ledger.set_nodes([*nodes, fresh] if lost else [*nodes, replace(gone, schedulable=False), fresh])
        if lost:
            for workload_id, held in list(self.ledger.running.allocations.items()):
                if gone.name in dict(self.ledger.cluster.placement(held).workers):
                    self.ledger.requeue(workload_id)
            self.ledger.set_nodes([*nodes, fresh])
            assert gone.name not in self.ledger.cluster.row_of

    @rule(gpus=st.sampled_from((0.0, 0.5, 3.0)), position=st.integers(0, 4))
    def something_runs_outside(self, gpus: float, position: int) -> None:
        nodes = self.ledger.cluster.nodes
        self.ledger.occupy({nodes[position % len(nodes)].name: Resources(gpus=gpus)})

    @rule(step_s=st.sampled_from((0.0, 10.0, 200.0, 5_000.0, 1e6)))
    def wait(self, step_s: float) -> None:
        self.ledger.advance(self.ledger.now_s + step_s)

    @precondition(lambda self: len(self.ledger.running))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.ledger.finish(data.draw(st.sampled_from(sorted(self.ledger.running.ids))))

    @precondition(lambda self: len(self.ledger.running) or len(self.ledger.pending))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.ledger.remove(data.draw(st.sampled_from(sorted(self.ledger.running.ids + self.ledger.pending.ids))))

    @rule()
    def decide_and_apply(self) -> None:
        snapshot = self.ledger.snapshot()
        self.check_kept(snapshot)
        decision = decide(snapshot, self.policy)
        assert decide(snapshot, self.policy) == decision, "the same snapshot gives the same decision"
        self.check_asked(decision.actions)
        for action in decision.actions:
            match action:
                case Preempt():
                    self.ledger.requeue(action.workload_id)
                case Place():
                    self.ledger.start(action.workload_id, action.placement)
                case Shrink() | Grow() | Move():
                    self.ledger.resize(action.workload_id, action.placement)
                case Reserve():
                    assert action.start_s >= self.ledger.now_s
            assert action.reason

    def check_kept(self, snapshot: Snapshot) -> None:
        """What is carried on from event to event is what would be found afresh."""
        cluster, running, pending = snapshot.cluster, snapshot.running, snapshot.pending
        assert (cluster.view().whole == (cluster.cells[:, : cluster.num_devices] == UNIT).sum(axis=1)).all()
        used = np.zeros_like(snapshot.usage.by_leaf)
        parts = {}
        for row, workload in enumerate(running.workloads):
            gang, held = cluster.gangs[running.ints_of("gang")[row]], running.allocations[workload.id]
            used[snapshot.queues.row_of[workload.queue]] += held.num_workers * gang.demand
            parts |= {(row, node): workers for node, workers in held.nodes}
            assert running.floats_of("share")[row] == held.num_workers * gang.share
            assert running.attained_s_of(row, snapshot.now_s) == running.attained_s(snapshot.now_s)[row]
        assert {
            (row, node): workers for row, node, workers in np.transpose(running.parts()).tolist() if workers
        } == parts
        assert (snapshot.usage.by_leaf == used).all()
        since_s = np.maximum(pending.floats_of("attained_s") - pending.floats_of("believed_from_s"), 0.0)
        expected = outlook(pending.floats_of("log_median"), pending.floats_of("sigma"), since_s)
        assert (pending.floats_of("remaining_s") == expected.remaining_s + pending.floats_of("restart_s")).all()
        assert (pending.floats_of("rate") == 1.0 / (1.0 / expected.rate + pending.floats_of("restart_s"))).all()
        assert (self.policy.least_running_ranks(snapshot) <= self.policy.running_ranks(snapshot)).all()

    def check_asked(self, actions) -> None:
        """Only who may be asked is asked, and only for a gang that starts in the same decision."""
        running, pending = self.ledger.running, self.ledger.pending
        protected = is_protected(running, self.ledger.now_s)
        started = {action.workload_id: action for action in actions if isinstance(action, Place)}
        assert len(started) == sum(isinstance(action, Place) for action in actions)
        for action in actions:
            if isinstance(action, Preempt | Shrink | Move):
                row = running.row_of[action.workload_id]
                victim, winner = running.workloads[row], pending.workloads[pending.row_of[action.for_id]]
                assert action.workload_id in started[action.for_id].after
                assert victim.priority <= winner.priority
                if self.policy.name != "srsf-oracle":
                    assert not protected[row]
                if isinstance(action, Preempt | Move):
                    assert victim.preemptible

    @invariant()
    def nothing_is_over_committed(self) -> None:
        if not hasattr(self, "ledger"):
            return
        cells = self.ledger.cluster.cells
        assert (cells >= 0).all()
        assert (cells <= self.ledger.cluster.capacity).all()
        held = sum(int(allocation.amounts.sum()) for allocation in self.ledger.running.allocations.values())
        assert held == int((self.ledger.cluster.capacity - self.ledger.cluster.outside - cells).sum())

    @invariant()
    def gangs_are_whole_and_lie_as_asked(self) -> None:
        if not hasattr(self, "ledger"):
            return
        cluster, running = self.ledger.cluster, self.ledger.running
        for workload in running.workloads:
            gang = workload.gang
            placed = cluster.placement(running.allocations[workload.id])
            assert gang.min_workers <= placed.num_workers <= gang.max_workers
            assert running.ints_of("workers")[running.row_of[workload.id]] == placed.num_workers
            labels = [dict(cluster.nodes[cluster.row_of[node]].labels) for node, _ in placed.workers]
            assert all(set(gang.labels) <= set(label.items()) for label in labels)
            if gang.topology:
                assert len({label[gang.topology] for label in labels}) == 1
            if gang.strategy is Strategy.STRICT_PACK:
                assert len(placed.workers) == 1
            if gang.strategy is Strategy.STRICT_SPREAD:
                assert all(count == 1 for _, count in placed.workers)

    @invariant()
    def quotas_hold(self) -> None:
        if not hasattr(self, "ledger") or not self.ledger.tree.is_limited:
            return
        usage = self.ledger.snapshot().usage.by_leaf[:, 0] / 10_000
        used = dict(zip([queue.name for queue in QUEUES], usage, strict=True))
        assert used["island"] <= 2.0
        assert used["product"] <= 4.0 + 3.0
        assert used["research"] + used["product"] + used["guests"] <= 10.0


Life.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLife = Life.TestCase


def test_the_queues_of_this_test_are_sound() -> None:
    check_queues(QUEUES, [Node("n", Resources(gpus=16, cpus=16))])


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_without_any_node_everything_waits(policy: str) -> None:
    ledger = Ledger([Node("n", Resources(gpus=8.0))], QUEUES)
    ledger.submit(Workload("w", Gang(Resources(gpus=1.0)), submitted_s=0.0, queue="guests"))
    ledger.set_nodes([])
    assert not decide(ledger.snapshot(), POLICIES[policy]).actions
