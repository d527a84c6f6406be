"""Cheap gangs move elsewhere when that lets a waiting gang start on what is idle."""

import pytest

from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import POLICIES
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import DEFAULT_QUEUE, Action, Gang, Move, Node, Place, Placement, Queue, Resources, Workload

MLAAS = POLICIES["mlaas"]


def cluster(*, nodes: int = 2, gpus: int = 4) -> Ledger:
    return Ledger([Node(f"n{number}", Resources(gpus=gpus)) for number in range(nodes)], [Queue(DEFAULT_QUEUE)])


def put(ledger: Ledger, name: str, *, gpus: float, on: str, **rest: object) -> None:
    """Let a gang of one worker run on a node, long ago enough that it may be asked."""
    rest = {"estimate_s": 4_000.0, "restart_cost_s": 10.0, "min_runtime_s": 0.0, **rest}
    ledger.submit(Workload(name, Gang(Resources(gpus=gpus)), 0.0, **rest))  # type: ignore[arg-type]  # of a test
    ledger.start(name, Placement(((on, 1),)))


def wants(
    ledger: Ledger, *, gpus: float, workers: int = 1, estimate_s: float = 40_000.0, priority: int = 0
) -> tuple[Action, ...]:
    gang = Gang(Resources(gpus=gpus), min_workers=workers, max_workers=workers)
    ledger.submit(Workload("wide", gang, 0.0, estimate_s=estimate_s, priority=priority))
    return decide(ledger.snapshot(), MLAAS).actions


def test_scattered_gpus_are_brought_together() -> None:
    ledger = cluster()
    put(ledger, "a", gpus=1, on="n0")
    put(ledger, "b", gpus=2, on="n1")
    move, place = wants(ledger, gpus=4)
    assert isinstance(move, Move)
    assert (move.workload_id, move.placement, move.for_id) == ("a", Placement((("n1", 1),)), "wide")
    assert isinstance(place, Place)
    assert (place.placement, place.after) == (Placement((("n0", 1),)), ("a",))
    ledger.resize(move.workload_id, move.placement)
    ledger.start(place.workload_id, place.placement)
    assert not ledger.cluster.cells[0].any()


def test_as_many_nodes_are_cleared_as_the_gang_needs() -> None:
    ledger = cluster(nodes=4)
    for number in range(4):
        put(ledger, f"g{number}", gpus=2, on=f"n{number}")
    actions = wants(ledger, gpus=4, workers=2)
    assert [type(action) for action in actions] == [Move, Move, Place]
    for action in actions[:-1]:
        ledger.resize(action.workload_id, action.placement)  # type: ignore[union-attr]  # moves, as was just seen
    ledger.start("wide", actions[-1].placement)  # type: ignore[union-attr]  # a placement, as was just seen


def test_fractions_move_when_a_whole_device_is_missing() -> None:
    ledger = cluster(gpus=2)
    put(ledger, "a", gpus=0.5, on="n0")
    put(ledger, "b", gpus=0.5, on="n1")
    move, place = wants(ledger, gpus=2)
    assert isinstance(move, Move)
    assert isinstance(place, Place)
    ledger.resize(move.workload_id, move.placement)
    ledger.start("wide", place.placement)


@pytest.mark.parametrize(
    "rest",
    [{"preemptible": False}, {"min_runtime_s": 1e6}, {"priority": 1}, {"restart_cost_s": 1e5}],
    ids=["not preemptible", "within its minimum runtime", "of higher priority", "too dear to restart"],
)
def test_some_stay_where_they_are(rest: dict[str, object]) -> None:
    ledger = cluster()
    put(ledger, "a", gpus=1, on="n0", **rest)
    put(ledger, "b", gpus=1, on="n1", **rest)
    assert not any(isinstance(action, Move | Place) for action in wants(ledger, gpus=4))


def test_nobody_moves_where_there_is_no_room_elsewhere() -> None:
    ledger = cluster()
    put(ledger, "a", gpus=2, on="n0", estimate_s=100.0)
    put(ledger, "b", gpus=3, on="n1", estimate_s=100.0)
    assert not any(isinstance(action, Move | Place) for action in wants(ledger, gpus=4))


def test_nobody_moves_for_a_run_that_is_soon_over() -> None:
    ledger = cluster()
    put(ledger, "a", gpus=1, on="n0", estimate_s=1.0)
    put(ledger, "b", gpus=1, on="n1", estimate_s=1.0)
    assert not any(isinstance(action, Move | Place) for action in wants(ledger, gpus=4, estimate_s=2.0))
