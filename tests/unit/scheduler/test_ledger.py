"""What the ledger says of nodes that come and go, of use from outside, of hot queues, and of what it takes over."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.errors import Conflict, InvalidRequest, NotFound, PlacementError
from mlaas.scheduler.cluster import UNIT
from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import POLICIES
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.tables import Progress
from mlaas.scheduler.types import DEFAULT_QUEUE, Gang, Node, Place, Placement, Queue, Resources, Workload

QUEUES = (Queue(DEFAULT_QUEUE), Queue("research", guarantee=(("GPU", 4.0),)))
MLAAS = POLICIES["mlaas"]


def node(name: str, *, gpus: float = 4.0, schedulable: bool = True) -> Node:
    return Node(name, Resources(gpus=gpus, cpus=16.0), schedulable=schedulable)


def workload(name: str, *, gpus: float = 1.0, workers: int = 1, most: int | None = None, **rest: object) -> Workload:
    gang = Gang(Resources(gpus=gpus), min_workers=workers, max_workers=most or workers)
    return Workload(name, gang, submitted_s=0.0, **rest)  # type: ignore[arg-type]  # the fields of a test


def on(*workers: tuple[str, int]) -> Placement:
    return Placement(workers)


def free_gpus(ledger: Ledger) -> dict[str, float]:
    cells = ledger.cluster.cells[:, : ledger.cluster.num_devices].sum(axis=1) / UNIT
    return dict(zip(ledger.cluster.row_of, cells.tolist(), strict=True))


def placed(ledger: Ledger) -> dict[str, Placement]:
    """Decide once, and return what is placed where."""
    actions = decide(ledger.snapshot(), MLAAS).actions
    return {action.workload_id: action.placement for action in actions if isinstance(action, Place)}


def test_a_node_that_comes_takes_what_waited() -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("wide", gpus=8.0))
    assert placed(ledger) == {}
    ledger.set_nodes([node("a"), node("b", gpus=8.0)])
    assert placed(ledger) == {"wide": on(("b", 1))}


def test_a_gang_on_a_lost_node_stays_booked_until_it_is_requeued() -> None:
    ledger = Ledger([node("a"), node("b"), node("c")], QUEUES)
    ledger.submit(workload("gang", gpus=4.0, workers=2))
    ledger.start("gang", on(("a", 1), ("b", 1)))
    ledger.set_nodes([node("c"), node("b")])
    assert free_gpus(ledger) == {"c": 4.0, "b": 0.0, "a": 0.0}
    ledger.requeue("gang")
    assert free_gpus(ledger) == {"c": 4.0, "b": 4.0, "a": 4.0}
    assert placed(ledger) == {"gang": on(("c", 1), ("b", 1))}, "the lost node takes nothing new"
    ledger.set_nodes([node("c")])
    assert free_gpus(ledger) == {"c": 4.0}, "and is forgotten"


def test_a_drained_node_keeps_what_runs_and_takes_nothing_new() -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("old"))
    ledger.submit(workload("new"))
    ledger.start("old", on(("a", 1)))
    ledger.set_nodes([node("a", schedulable=False)])
    assert placed(ledger) == {}
    assert list(ledger.running.ids) == ["old"]
    ledger.finish("old")
    assert free_gpus(ledger) == {"a": 4.0}


def test_a_node_that_comes_back_smaller_takes_nothing_until_it_is_empty() -> None:
    ledger = Ledger([node("a", gpus=8.0)], QUEUES)
    ledger.submit(workload("old", gpus=8.0))
    ledger.start("old", on(("a", 1)))
    ledger.submit(workload("new"))
    ledger.set_nodes([node("a", gpus=4.0)])
    assert free_gpus(ledger) == {"a": 0.0}
    ledger.finish("old")
    assert placed(ledger) == {}
    ledger.set_nodes([node("a", gpus=4.0)])
    assert free_gpus(ledger) == {"a": 4.0}
    assert placed(ledger) == {"new": on(("a", 1))}


def test_fractions_keep_their_devices_when_nodes_change() -> None:
    ledger = Ledger([node("a", gpus=2.0)], QUEUES)
    for number, share in enumerate((0.7, 0.7, 0.3, 0.3)):
        ledger.submit(workload(f"w{number}", gpus=share))
        ledger.start(f"w{number}", on(("a", 1)))
    ledger.finish("w1")
    ledger.set_nodes([node("b", gpus=8.0), node("a", gpus=2.0)])
    row = ledger.cluster.row_of["a"]
    assert sorted(ledger.cluster.cells[row, :2].tolist()) == [0, 7_000]
    assert ledger.running.entries()[2].sum() == 13_000


def test_shares_follow_the_size_of_the_cluster() -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("runs", gpus=2.0))
    ledger.submit(workload("waits", gpus=1.0))
    ledger.start("runs", on(("a", 1)))
    ledger.set_nodes([node("a"), node("b")])
    assert ledger.running.floats_of("share").tolist() == [0.25]
    assert ledger.pending.floats_of("share").tolist() == [0.125]


def test_outside_use_is_not_free_and_is_replaced_whole() -> None:
    ledger = Ledger([node("a"), node("b")], QUEUES)
    ledger.submit(workload("wide", gpus=4.0))
    ledger.occupy({"a": Resources(gpus=1.5), "b": Resources(gpus=1.0, cpus=2.0), "unknown": Resources(gpus=1.0)})
    assert free_gpus(ledger) == {"a": 2.5, "b": 3.0}
    assert placed(ledger) == {}
    ledger.set_nodes([node("b"), node("a")])
    assert free_gpus(ledger) == {"b": 3.0, "a": 2.5}, "it outlasts a change of nodes"
    ledger.occupy({"a": Resources(gpus=1.5)})
    assert placed(ledger) == {"wide": on(("b", 1))}


def test_outside_use_takes_nothing_that_a_gang_holds() -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("runs", gpus=3.0))
    ledger.start("runs", on(("a", 1)))
    ledger.occupy({"a": Resources(gpus=4.0, cpus=99.0)})
    assert free_gpus(ledger) == {"a": 0.0}
    assert ledger.cluster.cells.min() == 0
    ledger.occupy({})
    assert free_gpus(ledger) == {"a": 1.0}


def test_queues_change_hot_and_keep_their_past() -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("waits", queue="research"))
    ledger.submit(workload("runs", queue="research", gpus=2.0))
    ledger.start("runs", on(("a", 1)))
    ledger.advance(3_600.0)
    past = ledger.average_share[1]
    ledger.set_queues((Queue("research", borrowing_limit=(("GPU", 0.0),), guarantee=(("GPU", 2.0),)), Queue("new")))
    assert ledger.average_share.tolist() == [past, 0.0]
    assert placed(ledger) == {}, "the new limit holds at once"
    ledger.submit(workload("other", queue="new"))
    assert placed(ledger) == {"other": on(("a", 1))}


def test_a_queue_in_use_cannot_go() -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("waits", queue="research"))
    with pytest.raises(Conflict, match="research"):
        ledger.set_queues((Queue(DEFAULT_QUEUE),))
    assert ledger.tree.row_of.keys() == {DEFAULT_QUEUE, "research"}


def test_what_runs_is_taken_over_with_its_progress_and_place_in_line() -> None:
    ledger = Ledger([node("a")], QUEUES, now_s=1_000.0)
    ledger.occupy({"a": Resources(gpus=4.0)})
    ledger.restore(
        workload("old", gpus=3.0), on(("a", 1)), progress=Progress(50.0, 7.0, 60.0), started_s=800.0, sequence=41
    )
    assert free_gpus(ledger) == {"a": 0.0}
    assert ledger.running.attained_s(ledger.now_s).tolist() == [50.0 + 200.0 - 60.0]
    ledger.submit(workload("next"))
    assert ledger.pending.ints_of("sequence").tolist() == [42]
    with pytest.raises(Conflict, match="already here"):
        ledger.restore(workload("next"), on(("a", 1)), progress=Progress(), started_s=0.0)


@pytest.mark.parametrize("placement", [on(("gone", 1)), on(("a", 1))])
def test_what_cannot_be_there_is_not_taken_over(placement: Placement) -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("holds", gpus=2.0))
    ledger.start("holds", on(("a", 1)))
    ledger.occupy({"a": Resources(gpus=1.0)})
    with pytest.raises(PlacementError, match="old"):
        ledger.restore(workload("old", gpus=3.0), placement, progress=Progress(), started_s=0.0)
    assert free_gpus(ledger) == {"a": 1.0}
    ledger.submit(workload("old", gpus=3.0))


def test_a_placement_that_no_longer_fits_is_refused_and_changes_nothing() -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("first", gpus=1.0, workers=2, most=4))
    ledger.submit(workload("second", gpus=3.0))
    ledger.start("first", on(("a", 2)))
    with pytest.raises(PlacementError, match="second"):
        ledger.start("second", on(("a", 1)))
    with pytest.raises(PlacementError, match="first"):
        ledger.resize("first", on(("a", 5)))
    assert (ledger.pending.ids, ledger.running.ids, free_gpus(ledger)) == (["second"], ["first"], {"a": 2.0})


def test_a_gang_that_yields_is_taken_out_and_comes_back_in_its_place_in_line() -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("first", restart_cost_s=60.0))
    ledger.submit(workload("second"))
    ledger.start("first", on(("a", 1)))
    ledger.advance(500.0)
    progress = ledger.stop("first")
    assert progress == Progress(attained_s=500.0, waited_s=0.0, restart_owed_s=60.0)
    assert free_gpus(ledger) == {"a": 4.0}
    ledger.submit(workload("first", restart_cost_s=60.0), progress=progress, sequence=0)
    assert dict(zip(ledger.pending.ids, ledger.pending.ints_of("sequence").tolist(), strict=True)) == {
        "first": 0, "second": 1,
    }  # fmt: skip


def test_a_gang_counts_as_running_from_when_it_could_begin() -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("w"), progress=Progress(restart_owed_s=5.0))
    ledger.start("w", on(("a", 1)))
    ledger.advance(40.0)
    ledger.begin("w")
    ledger.advance(50.0)
    assert ledger.running.attained_s(ledger.now_s).tolist() == [5.0]


@pytest.mark.parametrize(("word", "left_s"), [({"left_s": 500.0}, 500.0), ({"done": 0.9}, 100.0)])
def test_a_run_is_believed_when_it_says_how_much_is_left(word: dict[str, float], left_s: float) -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("w", estimate_s=1e6))
    ledger.start("w", on(("a", 1)))
    ledger.advance(900.0)
    ledger.report("w", **word)
    assert MLAAS.running_left_s(ledger.snapshot())[0] == pytest.approx(left_s, rel=0.1)
    ledger.requeue("w")
    assert MLAAS.pending_runtime_s(ledger.snapshot())[0] == pytest.approx(left_s, rel=0.1)


def test_a_small_gang_says_what_is_left_at_its_present_size() -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("w", gpus=1.0, most=4))
    ledger.start("w", on(("a", 1)))
    ledger.report("w", left_s=400.0)
    assert MLAAS.running_left_s(ledger.snapshot())[0] == pytest.approx(400.0, rel=0.1)
    ledger.resize("w", on(("a", 4)))
    assert MLAAS.running_left_s(ledger.snapshot())[0] == pytest.approx(100.0, rel=0.1)


@pytest.mark.parametrize("word", [{}, {"left_s": -1.0}, {"left_s": float("nan")}, {"done": 0.0}, {"done": 1.5}])
def test_a_report_that_says_nothing_is_refused(word: dict[str, float]) -> None:
    ledger = Ledger([node("a")], QUEUES)
    ledger.submit(workload("w"))
    with pytest.raises(NotFound):
        ledger.report("w", left_s=1.0)
    ledger.start("w", on(("a", 1)))
    with pytest.raises(InvalidRequest):
        ledger.report("w", **word)


@given(
    outside=st.dictionaries(
        st.sampled_from(["a", "b", "gone"]), st.builds(Resources, gpus=st.floats(0, 9), cpus=st.floats(0, 40))
    ),
    keep=st.sets(st.sampled_from(["a", "b", "c"])),
)
def test_whatever_comes_from_outside_no_cell_is_held_twice(outside: dict[str, Resources], keep: set[str]) -> None:
    ledger = Ledger([node("a"), node("b")], QUEUES)
    for number in range(3):
        ledger.submit(workload(f"w{number}", gpus=(0.5, 2.0, 1.0)[number], workers=(1, 2, 3)[number]))
    for workload_id, placement in placed(ledger).items():
        ledger.start(workload_id, placement)
    ledger.occupy(outside)
    ledger.set_nodes([replace(node(name), schedulable=name != "b") for name in sorted(keep)])
    row, cell, amount, _ = ledger.running.entries()
    held = np.bincount(cell, weights=amount, minlength=ledger.cluster.cells.size).reshape(ledger.cluster.cells.shape)
    assert (ledger.cluster.cells >= 0).all()
    assert (ledger.cluster.cells + ledger.cluster.outside + held == ledger.cluster.capacity).all()
    assert set(row[amount > 0].tolist()) == set(range(len(ledger.running)))
