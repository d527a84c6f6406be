"""What is said of a workload is what the decision does."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import POLICIES
from mlaas.scheduler.decision.placement import find_nodes
from mlaas.scheduler.explanations.explain import Explanation, Standing, explain
from mlaas.scheduler.explanations.forecast import forecast
from mlaas.scheduler.explanations.plan import plan
from mlaas.scheduler.explanations.recording import decode_snapshot, encode_snapshot
from mlaas.scheduler.explanations.remedies import Choices, RemedyKind, remedies_for
from mlaas.scheduler.explanations.shortage import fit_of, quota_levels
from mlaas.scheduler.explanations.turn import turn_of
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.live.lifecycle import State
from mlaas.scheduler.requests.queues import PriorityClass
from mlaas.scheduler.snapshot import Snapshot
from mlaas.scheduler.types import Gang, Node, Place, Queue, Resources, Workload
from tests.fakes.worlds import POLICY, apply, ledgers

WIDTH, HEIGHT = 160, 40
"""A screen: lines wrap at most once on 80 columns."""
PENDING = Standing(state=State.PENDING)
CHOICES = Choices(classes=(PriorityClass(name="low", number=-1), PriorityClass(name="high", number=10)))


def explained(snapshot: Snapshot, workload_id: str, *, choices: Choices = CHOICES) -> Explanation:
    row = snapshot.pending.row_of[workload_id]
    return explain(snapshot, POLICY, snapshot.pending.workloads[row], standing=PENDING, choices=choices)


def placed(ledger: Ledger) -> dict[str, Place]:
    decision = decide(ledger.snapshot(), POLICY)
    return {action.workload_id: action for action in decision.actions if isinstance(action, Place)}


@settings(max_examples=25)
@given(ledger=ledgers)
def test_it_says_what_the_decision_does(ledger: Ledger) -> None:
    snapshot = ledger.snapshot()
    starts = placed(ledger)
    before = encode_snapshot(snapshot)
    for workload_id in snapshot.pending.ids[:2]:
        queued = explained(snapshot, workload_id).queued
        assert queued is not None
        assert queued.starts_now == (workload_id in starts)
        if queued.starts_now:
            assert (queued.placement, queued.after) == (starts[workload_id].placement, starts[workload_id].after)
            assert queued.remedies == ()
        else:
            assert queued.wait == decide(snapshot, POLICY).waits_for(workload_id)
    assert encode_snapshot(snapshot) == before, "explaining changes nothing"


@settings(max_examples=60)
@given(ledger=ledgers)
def test_each_remedy_starts_it_now(ledger: Ledger) -> None:
    snapshot = ledger.snapshot()
    recorded = encode_snapshot(snapshot)
    for workload_id in snapshot.pending.ids[:2]:
        if workload_id in placed(ledger):
            continue
        for remedy in remedies_for(snapshot, POLICY, workload_id, choices=CHOICES):
            world = Ledger.of(decode_snapshot(recorded))
            if remedy.nodes:
                world.set_nodes((*world.nodes, *remedy.nodes))
            for gone in remedy.gone:
                world.remove(gone)
            if remedy.workload is not None:
                world.remove(workload_id)
                world.submit(remedy.workload, belief=remedy.belief)
            assert workload_id in placed(world), remedy.text
            assert placed(world)[workload_id].after == remedy.yielding


@settings(max_examples=60)
@given(ledger=ledgers)
def test_quota_is_that_of_the_queue_tree(ledger: Ledger) -> None:
    snapshot = ledger.snapshot()
    tree, usage = snapshot.queues, snapshot.usage
    for workload_id in snapshot.pending.ids[:2]:
        row = snapshot.pending.row_of[workload_id]
        gang = snapshot.cluster.gangs[int(snapshot.pending.ints_of("gang")[row])]
        queue = snapshot.pending.workloads[row].queue
        need = gang.demand * gang.gang.min_workers
        levels = quota_levels(snapshot, queue=queue, need=need)
        own = [level for level in levels if level.queue == queue]
        assert all(level.missing == 0.0 for level in own) == usage.fits(tree.row_of[queue], need)
        for level in levels:
            column = tree.resources.index(level.resource)
            free = usage.available(tree.row_of[level.queue], column) / 10_000
            assert level.limit - level.used == pytest.approx(free)
            assert level.guarantee == tree.entitlement[tree.row_of[level.queue]][column] / 10_000
            assert level.need == need[column] / 10_000


@settings(max_examples=60)
@given(ledger=ledgers)
def test_what_fits_is_what_the_nodes_hold(ledger: Ledger) -> None:
    snapshot = ledger.snapshot()
    for workload_id in snapshot.pending.ids[:3]:
        row = snapshot.pending.row_of[workload_id]
        gang = snapshot.cluster.gangs[int(snapshot.pending.ints_of("gang")[row])]
        fit = fit_of(snapshot, gang, workers=gang.gang.min_workers)
        assert fit.fits == (find_nodes(snapshot.cluster.view(), gang, workers=gang.gang.min_workers) is not None)
        assert 0 <= fit.fitting_workers <= fit.possible_workers <= fit.needed_workers
        assert fit.suitable_nodes + sum(number for _, number in fit.unsuitable) == len(snapshot.cluster.nodes)
        if fit.nearest is not None:
            assert not fit.fits
            assert fit.nearest.missing or fit.nearest.is_used_outside or fit.nearest.held_by
            assert all(it in snapshot.running.row_of for it in fit.nearest.held_by)


@settings(max_examples=15)
@given(ledger=ledgers, again=st.integers(2, 3))
def test_of_alike_workloads_the_later_starts_no_sooner(ledger: Ledger, again: int) -> None:
    if not len(ledger.pending):
        return
    first = ledger.pending.entry(0)
    for number in range(again):
        ledger.submit(replace(first.workload, id=f"again-{number}"), belief=first.belief)
    alike = [f"again-{number}" for number in range(again)]
    turns = [turn_of(ledger.snapshot(), POLICY, each).position for each in alike]
    assert turns == sorted(turns)
    starts = [forecast(ledger.snapshot(), POLICY, each) for each in alike]
    expected = [math.inf if start.expected_s is None else start.expected_s for start in starts]
    assert expected == sorted(expected)
    for start in starts:
        if start.expected_s is not None and start.latest_s is not None:
            assert start.earliest_s is not None
            assert 0.0 <= start.earliest_s <= start.expected_s <= start.latest_s


@settings(max_examples=40)
@given(ledger=ledgers)
def test_a_plan_is_what_happens_after_submission(ledger: Ledger) -> None:
    snapshot = ledger.snapshot()
    before = encode_snapshot(snapshot)
    workload = Workload("new", Gang(Resources(gpus=1.0), min_workers=2, max_workers=2), 0.0, queue="guests")
    belief = ledger.history.believe(tenant=workload.tenant, name=workload.name, estimate_s=workload.estimate_s)
    dry = plan(snapshot, POLICY, [workload], belief=belief)
    assert encode_snapshot(snapshot) == before, "a dry run changes nothing"
    if dry.refusal is not None:
        return
    ledger.submit(workload)
    starts = placed(ledger)
    assert dry.queued is not None
    assert dry.num_starting == ("new" in starts)
    if "new" in starts:
        assert dry.queued.placement == starts["new"].placement
    assert {level.queue for level in dry.quota} <= {"guests", "org"}


@settings(max_examples=20)
@given(ledger=ledgers)
def test_it_fits_a_screen_and_travels_as_json(ledger: Ledger) -> None:
    snapshot = ledger.snapshot()
    states = [(it, State.PENDING) for it in snapshot.pending.workloads[:2]]
    states += [(it, State.RUNNING) for it in snapshot.running.workloads[:2]]
    for workload, state in states:
        told = explain(snapshot, POLICY, workload, standing=Standing(state=state), choices=CHOICES)
        lines = told.lines()
        assert len(lines) <= HEIGHT
        assert max(map(len, lines)) <= WIDTH, max(lines, key=len)
        assert json.loads(json.dumps(asdict(told), allow_nan=False))["workload_id"] == workload.id


def test_rank_parts_add_up_to_the_rank() -> None:
    ledger = worked_example()
    snapshot = ledger.snapshot()
    for policy in POLICIES.values():
        parts = policy.pending_parts(snapshot)
        total = np.sum([values for name, values in parts.items() if name != "aging"], axis=0)
        assert total == pytest.approx(policy.pending_ranks(snapshot))


def worked_example() -> Ledger:
    """Two nodes of 4 GPUs, one full and one half full; three wait."""
    queues = (
        Queue("org"),
        Queue("research", parent="org", guarantee=(("GPU", 4.0),)),
        Queue("product", parent="org", guarantee=(("GPU", 4.0),), borrowing_limit=(("GPU", 0.0),)),
    )
    labels = (("accelerator", "a100"),)
    nodes = [Node(name, Resources(gpus=4.0), labels=labels) for name in ("n0", "n1")]
    ledger = Ledger(nodes, queues)
    for name, gpus in (("long", 4.0), ("short", 2.0)):
        ledger.submit(Workload(name, Gang(Resources(gpus=gpus)), 0.0, queue="research", estimate_s=3_600.0))
    apply(ledger, decide(ledger.snapshot(), POLICY))
    ledger.advance(60.0)
    ledger.submit(Workload("wide", Gang(Resources(gpus=4.0)), 60.0, queue="research", estimate_s=600.0, tenant="ann"))
    ledger.submit(Workload("urgent", Gang(Resources(gpus=3.0)), 60.0, queue="research", priority=7, tenant="bob"))
    ledger.submit(Workload("much", Gang(Resources(gpus=1.0), 5, 5), 60.0, queue="product", estimate_s=600.0))
    return ledger


def test_it_names_the_number_the_queue_and_the_way_out() -> None:
    snapshot = worked_example().snapshot()
    text = "\n".join(explained(snapshot, "wide").lines())
    assert "queue org uses 6 of 8 GPUs that it may use now (guarantee 8); this needs 4 more" in text
    assert "0 of 1 worker fit now; free on the 2 suitable nodes, in pieces: 2 GPUs" in text
    assert "nearest is node n0: 2 GPUs short, held by short" in text
    assert "urgent (bob, 3 GPUs): priority 7 against 0" in text
    assert "ask for 2 GPUs for each worker instead of 4 (about 2 times as long)" in text
    assert "expected start: in about" in text
    much = explained(snapshot, "much").queued
    assert much is not None
    assert much.quota[0].queue == "product"
    assert (much.quota[0].used, much.quota[0].limit, much.quota[0].need, much.quota[0].missing) == (0.0, 2.0, 5.0, 3.0)


def test_more_nodes_and_those_in_the_way_are_named_with_their_cost() -> None:
    ledger = Ledger([Node("n", Resources(gpus=4.0))], [Queue("default")])
    ledger.submit(Workload("here", Gang(Resources(gpus=4.0)), 0.0, restart_cost_s=30.0, min_runtime_s=1e6))
    apply(ledger, decide(ledger.snapshot(), POLICY))
    ledger.submit(Workload("next", Gang(Resources(gpus=4.0)), 0.0))
    queued = explained(ledger.snapshot(), "next").queued
    assert queued is not None
    by_kind = {remedy.kind: remedy for remedy in queued.remedies}
    assert by_kind[RemedyKind.NODES].text == "1 more node like n (4 GPUs)"
    assert by_kind[RemedyKind.YIELD].gone == ("here",)
    assert by_kind[RemedyKind.YIELD].lost_gpu_s == 120.0
    assert "here would have to give back 4 GPUs; lost: 2 min of GPU time" in by_kind[RemedyKind.YIELD].text


def test_a_gang_that_no_node_holds_is_said_never_to_start() -> None:
    ledger = Ledger([Node("n", Resources(gpus=4.0))], [Queue("default")])
    ledger.submit(Workload("huge", Gang(Resources(gpus=4.0), 3, 3), 0.0))
    told = explained(ledger.snapshot(), "huge")
    assert told.queued is not None
    assert told.queued.forecast.never
    assert "the nodes that are there hold 1 at most, even with nothing on them" in "\n".join(told.lines())
    assert {remedy.kind for remedy in told.queued.remedies} >= {RemedyKind.WORKERS, RemedyKind.NODES}


def test_what_is_held_back_is_explained_as_if_it_were_let_go() -> None:
    ledger = Ledger([Node("n", Resources(gpus=4.0))], [Queue("default")])
    ledger.advance(100.0)
    workload = Workload("child", Gang(Resources(gpus=4.0)), 0.0)
    standing = Standing(state=State.PENDING, waits_for=("parent",), not_before_s=130.0)
    told = explain(ledger.snapshot(), POLICY, workload, standing=standing)
    assert told.lines() == (
        "child is pending",
        "held back until parent has succeeded",
        "held back for another 30 s after its last failure",
        "would start at once on n (1 worker)",
    )
    assert len(ledger.pending) == 0


def test_a_running_gang_is_explained() -> None:
    ledger = worked_example()
    standing = Standing(state=State.YIELDING, yield_by_s=ledger.now_s + 20.0)
    workload = ledger.running.workloads[ledger.running.row_of["long"]]
    told = explain(ledger.snapshot(), POLICY, workload, standing=standing)
    assert told.queued is None
    assert told.running is not None
    quick_s, median_s, slow_s = told.running.left_s
    assert 0.0 <= quick_s <= median_s <= slow_s
    assert told.running.since_s == 60.0
    assert "told to yield; killed in 20 s if it has not given back by then" in told.lines()


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_what_has_ended_is_explained_by_its_record(state: State) -> None:
    ledger = worked_example()
    told = explain(
        ledger.snapshot(), POLICY, Workload("old", Gang(Resources(gpus=1.0)), 0.0),
        standing=Standing(state=state, reason="exit code 1"),
    )  # fmt: skip
    assert told.lines() == (f"old is {state}: exit code 1",)


def test_a_plan_that_could_never_run_says_so() -> None:
    ledger = worked_example()
    dry = plan(ledger.snapshot(), POLICY, [Workload("new", Gang(Resources(gpus=8.0)), 0.0, queue="research")])
    assert dry.refusal is not None
    assert dry.lines()[0].startswith("would be refused: new: ")
    dry = plan(ledger.snapshot(), POLICY, [Workload("new", Gang(Resources(gpus=1.0)), 0.0, queue="org")])
    assert dry.refusal == "new: no queue 'org'; there are product, research"


def test_an_array_is_planned_whole() -> None:
    ledger = worked_example()
    array = [
        Workload(f"new-{index}", Gang(Resources(gpus=1.0)), 0.0, queue="product", estimate_s=60.0) for index in range(3)
    ]
    dry = plan(ledger.snapshot(), POLICY, array)
    assert dry.num_starting == 2
    assert dry.lines()[0] == "new-0 would be accepted as 3 workloads; 2 would start now. The first:"


def test_who_waits_behind_a_wide_gang_is_told_that_it_needs_much_at_once() -> None:
    ledger = Ledger([Node(f"n{number}", Resources(gpus=4.0)) for number in range(2)], [Queue("a")])
    ledger.submit(Workload("wide", Gang(Resources(gpus=4.0), 2, 2), 0.0, queue="a", estimate_s=600.0))
    ledger.advance(7_200.0)
    ledger.submit(Workload("small", Gang(Resources(gpus=1.0)), 7_200.0, queue="a", estimate_s=600.0))
    before = turn_of(ledger.snapshot(), POLICY, "small").before
    assert [each.why for each in before] == ["needs 100 % of the cluster at once, and has waited 2 h for that"]
