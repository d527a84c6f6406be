import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.scheduler.cluster import UNIT
from mlaas.scheduler.decision.quota import QueueTree
from mlaas.scheduler.types import Queue


def gpus(**amounts: float) -> dict[str, tuple[tuple[str, float], ...]]:
    return {name: (("GPU", amount),) for name, amount in amounts.items()}


def usage_of(queues: list[Queue], **used: float):
    tree = QueueTree(queues, ["GPU"])
    by_leaf = np.zeros((len(queues), 1), dtype=np.int64)
    for name, amount in used.items():
        by_leaf[tree.row_of[name], 0] = round(amount * UNIT)
    return tree, tree.usage(by_leaf)


def available(queues: list[Queue], queue: str, **used: float) -> float:
    tree, usage = usage_of(queues, **used)
    return usage.available(tree.row_of[queue], 0) / UNIT


TWO = [Queue("all"), Queue("a", parent="all", **gpus(guarantee=6)), Queue("b", parent="all", **gpus(guarantee=4))]


@pytest.mark.parametrize(
    ("used", "expected"),
    [({}, 10.0), ({"b": 3}, 7.0), ({"a": 6, "b": 2}, 2.0), ({"a": 2, "b": 8}, 0.0)],
)
def test_a_queue_borrows_what_its_cohort_does_not_use(used: dict[str, float], expected: float) -> None:
    assert available(TWO, "a", **used) == expected


def test_a_borrowing_limit_bounds_what_is_borrowed() -> None:
    queues = [Queue("all"), Queue("a", parent="all", **gpus(guarantee=6, borrowing_limit=1)), TWO[2]]
    assert available(queues, "a") == 7.0
    assert available(queues, "a", a=6.5) == 0.5


def test_a_lending_limit_keeps_the_rest_for_its_owner() -> None:
    queues = [Queue("all"), TWO[1], Queue("b", parent="all", **gpus(guarantee=4, lending_limit=1))]
    assert available(queues, "a") == 7.0
    assert available(queues, "b", a=7) == 3.0


def test_a_queue_without_a_cohort_has_its_guarantee_and_no_more() -> None:
    assert available([Queue("island", **gpus(guarantee=2))], "island", island=1.5) == 0.5


def test_a_cohort_lends_through_its_own_parent() -> None:
    queues = [
        Queue("org"),
        Queue("left", parent="org"),
        Queue("right", parent="org", **gpus(borrowing_limit=2)),
        Queue("a", parent="left", **gpus(guarantee=4)),
        Queue("b", parent="right", **gpus(guarantee=4)),
    ]
    assert available(queues, "a") == 8.0
    assert available(queues, "b") == 6.0


def test_a_resource_that_nobody_is_guaranteed_is_free_for_all() -> None:
    tree = QueueTree(TWO, ["GPU", "CPU"])
    usage = tree.usage(np.array([[0, 0], [0, 10**6], [0, 0]]))
    assert usage.fits(1, np.array([0, 10**9]))


amounts = st.integers(0, 8)


@given(
    a=amounts,
    b=amounts,
    lend=st.none() | amounts,
    borrow=st.none() | amounts,
    asks=st.lists(st.tuples(st.booleans(), st.integers(1, 4)), max_size=20),
)
def test_granted_asks_never_exceed_the_cohort_and_always_honour_guarantees(a, b, lend, borrow, asks) -> None:
    limits = gpus(guarantee=a) | (gpus(lending_limit=min(lend, a)) if lend is not None else {})
    limits |= gpus(borrowing_limit=borrow) if borrow is not None else {}
    queues = [Queue("all"), Queue("a", parent="all", **limits), Queue("b", parent="all", **gpus(guarantee=b))]
    tree, usage = usage_of(queues)
    held = {"a": 0, "b": 0}
    for is_a, gpu in asks:
        name = "a" if is_a else "b"
        row, need = tree.row_of[name], np.array([gpu * UNIT])
        if usage.fits(row, need):
            usage.charge(row, need)
            held[name] += gpu
    assert held["a"] + held["b"] <= a + b
    assert borrow is None or held["a"] <= a + borrow
    assert lend is None or held["b"] <= b + min(lend, a)
    again = tree.usage(usage.by_leaf)
    for row in range(3):
        assert again.available(row, 0) == usage.available(row, 0), "charging one by one and adding up at once agree"
