"""Small worlds in which it is plain what each policy should do; and one suite that every policy passes."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import POLICIES, MlaasPolicy, borrowed
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
    Reserve,
    Resources,
    Shrink,
    WaitCode,
    Workload,
)

TENANTS = (Queue("all"), Queue("a", parent="all"), Queue("b", parent="all"))
GUARANTEED = (
    Queue("all"),
    Queue("a", parent="all", guarantee=(("GPU", 4.0),)),
    Queue("b", parent="all", guarantee=(("GPU", 4.0),)),
)


def cluster(*gpus: int, queues: tuple[Queue, ...] = TENANTS) -> Ledger:
    return Ledger([Node(f"n{number}", Resources(gpus=count)) for number, count in enumerate(gpus)], queues)


def job(name: str, gpus: float = 1.0, workers: int = 1, estimate_s: float = 1_000.0, **rest) -> Workload:
    gang = Gang(Resources(gpus=gpus), workers, rest.pop("max_workers", workers))
    settings = {"queue": "a", "restart_cost_s": 60.0} | rest
    return Workload(name, gang, submitted_s=0.0, estimate_s=estimate_s, **settings)


def step(ledger: Ledger, policy: str = "mlaas", *, at_s: float | None = None) -> Decision:
    """Decide and carry it out."""
    ledger.advance(ledger.now_s if at_s is None else at_s)
    decision = decide(ledger.snapshot(), POLICIES[policy])
    for action in decision.actions:
        match action:
            case Place():
                ledger.start(action.workload_id, action.placement)
            case Preempt():
                ledger.requeue(action.workload_id)
            case Shrink() | Grow() | Move():
                ledger.resize(action.workload_id, action.placement)
    return decision


def submit(ledger: Ledger, *workloads: Workload) -> None:
    for workload in workloads:
        ledger.submit(workload)


def placed(decision: Decision) -> list[str]:
    return [action.workload_id for action in decision.actions if isinstance(action, Place)]


@pytest.mark.parametrize("policy", sorted(POLICIES))
class TestEveryPolicy:
    def test_fills_an_idle_cluster(self, policy: str) -> None:
        ledger = cluster(8, 8)
        submit(ledger, *(job(f"w{number}", gpus=4) for number in range(4)))
        assert len(placed(step(ledger, policy))) == 4
        assert not ledger.cluster.cells.any()

    def test_equal_workloads_go_in_the_order_of_their_submission(self, policy: str) -> None:
        ledger = cluster(3)
        submit(ledger, *(job(f"w{number}") for number in range(200)))
        assert placed(step(ledger, policy)) == ["w0", "w1", "w2"]

    def test_a_gang_starts_whole_or_not_at_all(self, policy: str) -> None:
        ledger = cluster(4, 4)
        submit(ledger, job("wide", workers=9))
        assert placed(step(ledger, policy)) == []
        submit(ledger, job("fits", gpus=4, workers=2))
        ledger.remove("wide")
        assert placed(step(ledger, policy)) == ["fits"]

    def test_two_halves_on_two_devices_do_not_hold_more_than_a_half(self, policy: str) -> None:
        ledger = cluster(2)
        submit(ledger, *(job(f"w{number}", gpus=0.6) for number in range(3)))
        assert placed(step(ledger, policy)) == ["w0", "w1"]

    def test_fractions_share_a_device_before_they_break_another(self, policy: str) -> None:
        ledger = cluster(2, 2)
        submit(ledger, *(job(f"w{number}", gpus=0.25) for number in range(4)), job("whole", gpus=2))
        assert len(placed(step(ledger, policy))) == 5

    def test_one_gpu_work_leaves_whole_nodes_to_wide_gangs(self, policy: str) -> None:
        ledger = cluster(8, 8, 8)
        submit(ledger, *(job(f"w{number}") for number in range(8)), job("wide", gpus=8, workers=2))
        assert len(placed(step(ledger, policy))) == 9

    def test_nothing_to_do_is_a_decision_too(self, policy: str) -> None:
        assert step(cluster(8), policy) == Decision(())


def test_fifo_lets_nothing_pass_and_says_so() -> None:
    ledger = cluster(4)
    submit(ledger, job("first", gpus=3), job("wide", gpus=4), job("small"))
    decision = step(ledger, "fifo")
    assert placed(decision) == ["first"]
    assert decision.waits_for("wide").code is WaitCode.RESOURCES
    assert decision.waits_for("small").code is WaitCode.QUEUED


def test_easy_lets_pass_what_ends_before_the_reservation_or_fits_beside_it() -> None:
    ledger = cluster(4, 4)
    submit(ledger, job("long", gpus=3, estimate_s=1_000.0), job("short", gpus=2, estimate_s=500.0))
    step(ledger, "easy")
    submit(
        ledger,
        job("wide", gpus=4, estimate_s=100.0),
        job("beside", gpus=1, estimate_s=9_000.0),
        job("in_time", gpus=2, estimate_s=400.0),
        job("too_long", gpus=2, estimate_s=600.0),
    )
    decision = step(ledger, "easy")
    assert placed(decision) == ["beside", "in_time"]
    reserved = next(action for action in decision.actions if isinstance(action, Reserve))
    assert (reserved.workload_id, reserved.start_s, reserved.placement.workers) == ("wide", 500.0, (("n1", 1),))


def test_a_shorter_job_makes_a_longer_one_yield_and_both_finish() -> None:
    ledger = cluster(1)
    submit(ledger, job("long", estimate_s=1e6))
    step(ledger)
    submit(ledger, job("short", estimate_s=60.0))
    assert placed(step(ledger, at_s=100.0)) == [], "within its minimum runtime the long one is left in peace"
    decision = step(ledger, at_s=400.0)
    preempted = next(action for action in decision.actions if isinstance(action, Preempt))
    assert (preempted.workload_id, preempted.for_id) == ("long", "short")
    assert "borrowed" in preempted.reason
    assert next(a for a in decision.actions if isinstance(a, Place)).after == ("long",)
    ledger.advance(460.0)
    ledger.finish("short")
    step(ledger)
    assert ledger.running.attained_s(460.0 + 60.0).tolist() == [400.0], (
        "nothing it did is lost, and the restart is charged"
    )


def test_what_is_not_preemptible_never_yields() -> None:
    ledger = cluster(1)
    submit(ledger, job("long", estimate_s=1e6, preemptible=False))
    step(ledger)
    submit(ledger, job("short", estimate_s=60.0, priority=100))
    assert placed(step(ledger, at_s=1e5)) == []


def test_for_what_does_not_preempt_nobody_yields_and_the_like_that_does_is_still_looked_at() -> None:
    ledger = cluster(1)
    submit(ledger, job("long", estimate_s=1e6))
    step(ledger)
    submit(ledger, job("patient", estimate_s=50.0, preempts=False))
    assert placed(step(ledger, at_s=400.0)) == []
    submit(ledger, job("short", estimate_s=60.0))
    assert placed(step(ledger, at_s=500.0)) == ["short"]
    ledger.advance(560.0)
    ledger.finish("short")
    assert placed(step(ledger)) == ["patient"], "once there is room it goes first as it would otherwise"


def test_higher_priority_goes_first_and_never_yields_to_lower() -> None:
    ledger = cluster(1)
    submit(ledger, job("low", estimate_s=10.0), job("high", estimate_s=1e6, priority=1))
    assert placed(step(ledger)) == ["high"]
    assert placed(step(ledger, at_s=1e6)) == []


def test_the_least_valuable_gang_yields_and_only_as_many_as_needed() -> None:
    ledger = cluster(4)
    submit(ledger, *(job(f"w{number}", estimate_s=10.0 ** (number + 3)) for number in range(4)))
    step(ledger)
    submit(ledger, job("short", gpus=2, estimate_s=30.0))
    decision = step(ledger, at_s=400.0)
    assert sorted(action.workload_id for action in decision.actions if isinstance(action, Preempt)) == ["w2", "w3"]


def test_a_guarantee_is_taken_back_from_a_borrower_and_never_the_other_way_round() -> None:
    ledger = cluster(8, queues=GUARANTEED)
    submit(ledger, *(job(f"a{number}", queue="a", estimate_s=600.0) for number in range(8)))
    step(ledger)
    submit(ledger, *(job(f"b{number}", queue="b", estimate_s=1e6) for number in range(8)))
    step(ledger, at_s=400.0)
    queue_of = {workload.id: workload.queue for workload in ledger.running.workloads}
    assert sorted(queue_of.values()) == ["a"] * 4 + ["b"] * 4, "four are taken back, and no more than the guarantee"
    step(ledger, at_s=2_000.0)
    assert sorted(w.queue for w in ledger.running.workloads) == ["a"] * 4 + ["b"] * 4


def test_an_elastic_gang_shrinks_before_anyone_is_killed_and_grows_again() -> None:
    ledger = cluster(8)
    submit(ledger, job("elastic", workers=2, max_workers=7, estimate_s=1e6), job("rigid", estimate_s=1e6))
    step(ledger)
    step(ledger, at_s=400.0)
    assert ledger.running.ints_of("workers")[ledger.running.row_of["elastic"]] == 7
    submit(ledger, job("short", gpus=2, estimate_s=60.0))
    decision = step(ledger, at_s=1_000.0)
    assert [type(action) for action in decision.actions] == [Shrink, Place]
    assert ledger.running.ints_of("workers")[ledger.running.row_of["elastic"]] == 5, "no more than is needed"
    ledger.finish("short")
    assert any(isinstance(action, Grow) for action in step(ledger, at_s=2_000.0).actions)


def test_a_deadline_about_to_be_missed_goes_before_shorter_work() -> None:
    ledger = cluster(1)
    submit(ledger, job("short", estimate_s=100.0), job("due", estimate_s=1_000.0, deadline_s=3_000.0))
    assert placed(step(ledger)) == ["due"]


def test_the_tenant_that_has_had_little_goes_first() -> None:
    ledger = cluster(2)
    submit(ledger, *(job(f"a{number}", queue="a", estimate_s=1e4) for number in range(6)))
    step(ledger)
    ledger.advance(50_000.0)
    for name in list(ledger.running.ids):
        ledger.finish(name)
    submit(ledger, *(job(f"b{number}", queue="b", estimate_s=1.2e4) for number in range(2)))
    assert placed(step(ledger)) == ["b0", "b1"]
    assert MlaasPolicy.fairness_bound**2 > 2


def test_a_wide_gang_is_not_starved_by_a_stream_of_small_work() -> None:
    """The aging bound: once the wide gang has waited `aging_s`, nothing submitted later starts before it and delays
    it.
    """
    ledger, policy = cluster(4, 4), POLICIES["mlaas"]
    assert isinstance(policy, MlaasPolicy)
    wide = replace(job("wide", gpus=4, workers=2, estimate_s=36_000.0), preemptible=True)
    number, ends = 0, {}
    submit(ledger, *(job(f"s{-count}", estimate_s=3_600.0) for count in range(1, 9)))
    step(ledger)
    ends = {name: 3_600.0 * (1 + position / 8) for position, name in enumerate(ledger.running.ids)}
    submit(ledger, wide)
    bound_s = policy.aging_s
    while "wide" not in ledger.running.row_of:
        name = min(ends, key=ends.__getitem__)
        ledger.advance(ends.pop(name))
        ledger.finish(name)
        number += 1
        submit(ledger, job(f"s{number}", estimate_s=3_600.0), job(f"t{number}", estimate_s=3_600.0))
        for started in placed(step(ledger)):
            ends[started] = ledger.now_s + 3_600.0
        assert ledger.now_s < bound_s + 2 * 3_600.0, "it starts as soon as what runs has ended"
        assert math.isfinite(ledger.now_s)


def test_a_short_gang_as_wide_as_the_cluster_starts_within_hours_of_a_stream_of_smaller_work() -> None:
    """Each of the stream is less work than the wide gang, so least service alone would put it last till it has aged."""
    ledger = cluster(4, 4)
    submit(ledger, *(job(f"s{-count}", estimate_s=1_800.0) for count in range(1, 9)))
    step(ledger)
    ends = {name: 1_800.0 * (1 + position / 8) for position, name in enumerate(ledger.running.ids)}
    submit(ledger, job("wide", gpus=4, workers=2, estimate_s=600.0))
    while "wide" not in ledger.running.row_of:
        name = min(ends, key=ends.__getitem__)
        ledger.advance(ends.pop(name))
        ledger.finish(name)
        submit(ledger, job(f"s{len(ends)}-{ledger.now_s}", estimate_s=1_800.0))
        decision = step(ledger)
        for gone in [action.workload_id for action in decision.actions if isinstance(action, Preempt)]:
            del ends[gone]
        ends |= dict.fromkeys(placed(decision), ledger.now_s + 1800.0)
        assert ledger.now_s < 3 * 3_600.0


def test_a_gang_goes_where_it_was_measured_to_be_fastest_and_is_believed_to_end_sooner_there() -> None:
    nodes = [
        Node(f"n{number}", Resources(gpus=2), labels=(("accelerator", kind),))
        for number, kind in enumerate(("a100", "h100", "a100"))
    ]
    ledger = Ledger(nodes, [Queue("default")])
    gang = Gang(Resources(gpus=2.0), throughput=(("h100", 2.0), ("a100", 0.5)))
    for name in ("first", "second"):
        ledger.submit(Workload(name, gang, submitted_s=0.0, estimate_s=1_000.0))
    for action in decide(ledger.snapshot(), POLICIES["sjf"]).actions:
        assert isinstance(action, Place)
        ledger.start(action.workload_id, action.placement)
    assert ledger.cluster.placement(ledger.running.allocations["first"]).workers == (("n1", 1),)
    left = dict(zip(ledger.running.ids, POLICIES["sjf"].running_left_s(ledger.snapshot()), strict=True))
    assert left == {"first": 500.0, "second": 2_000.0}
    ledger.advance(100.0)
    assert ledger.requeue("first").attained_s == 200.0


def test_what_a_queue_is_guaranteed_is_not_borrowed_for_the_resources_that_it_says_nothing_of() -> None:
    nodes = [Node(f"n{number}", Resources(gpus=8, cpus=96)) for number in range(2)]
    own = (("GPU", 8.0),)
    queues = [
        Queue("org"),
        *(Queue(name, parent="org", guarantee=own) for name in ("a", "b")),
        Queue("c", parent="org"),
    ]
    ledger = Ledger(nodes, queues)
    gang = Gang(Resources(gpus=8, cpus=8))
    for queue, estimate_s in (("a", 1e5), ("c", 10.0)):
        ledger.submit(Workload(queue, gang, submitted_s=0.0, queue=queue, estimate_s=estimate_s, min_runtime_s=0.0))
    for action in decide(ledger.snapshot(), POLICIES["mlaas"]).actions:
        if isinstance(action, Place):
            ledger.start(action.workload_id, action.placement)
    ledger.advance(1.0)
    assert dict(zip(ledger.running.ids, borrowed(ledger.snapshot(), np.ones(2)), strict=True)) == {
        "a": False,
        "c": True,
    }
    ledger.submit(Workload("b", gang, submitted_s=1.0, queue="b", estimate_s=100.0))
    yielding = [it for it in decide(ledger.snapshot(), POLICIES["mlaas"]).actions if isinstance(it, Preempt)]
    assert [(it.workload_id, it.for_id) for it in yielding] == [("c", "b")]
