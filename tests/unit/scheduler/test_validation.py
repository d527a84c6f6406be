import math
from dataclasses import replace

import pytest

from mlaas.errors import AdmissionError, ConfigError
from mlaas.scheduler.cluster import ClusterIndex
from mlaas.scheduler.types import Gang, Node, Queue, Resources, Strategy, Workload
from mlaas.scheduler.validation import check_dependencies, check_queues, check_workload

NODES = [
    Node(f"n{n}", Resources(gpus=8, cpus=32), labels=(("accelerator", "a100"), ("rack", f"r{n // 2}")))
    for n in range(4)
]
CLUSTER = ClusterIndex(NODES)
GOOD = Workload("w", Gang(Resources(gpus=1)), submitted_s=0.0, queue="q")


def check(workload: Workload, *, may_grow: bool = False) -> None:
    check_workload(workload, cluster=CLUSTER, queues=["q"], may_grow=may_grow)


def test_a_sound_workload_passes() -> None:
    check(GOOD)


@pytest.mark.parametrize("gpus", [-1.0, math.nan, math.inf, 1e9, 1.5, 1e-6])
def test_impossible_amounts_are_refused(gpus: float) -> None:
    with pytest.raises(AdmissionError) as refused:
        check(replace(GOOD, gang=Gang(Resources(gpus=gpus))))
    assert refused.value.code == "bad_resources"
    assert "w:" in refused.value.message


@pytest.mark.parametrize(
    ("workload", "code"),
    [
        (replace(GOOD, gang=Gang(Resources())), "bad_resources"),
        (replace(GOOD, gang=Gang(Resources(gpus=1), min_workers=0)), "bad_gang"),
        (replace(GOOD, gang=Gang(Resources(gpus=1), min_workers=3, max_workers=2)), "bad_gang"),
        (replace(GOOD, gang=Gang(Resources(gpus=1), min_workers=1, max_workers=10**9)), "bad_gang"),
        (replace(GOOD, queue="nowhere"), "unknown_queue"),
        (replace(GOOD, gang=Gang(Resources(gpus=1), labels=(("accelerator", "h200"),))), "unknown_label"),
        (replace(GOOD, gang=Gang(Resources(gpus=1), topology="nvlink")), "unknown_label"),
        (replace(GOOD, gang=Gang(Resources(custom=(("TPU", 1.0),)))), "gang_too_large"),
        (replace(GOOD, gang=Gang(Resources(gpus=1, custom=(("GPU", 5.0),)))), "bad_resources"),
        (replace(GOOD, gang=Gang(Resources(custom=(("TPU", 1.0), ("TPU", 2.0))))), "bad_resources"),
        (replace(GOOD, estimate_s=-1.0), "bad_time"),
        (replace(GOOD, estimate_s=math.nan), "bad_time"),
        (replace(GOOD, estimate_s=0.0), "bad_time"),
        (replace(GOOD, deadline_s=math.inf), "bad_time"),
        (replace(GOOD, priority=10**6), "bad_priority"),
        (replace(GOOD, max_retries=-1), "bad_retries"),
    ],
)
def test_bad_workloads_are_refused(workload: Workload, code: str) -> None:
    with pytest.raises(AdmissionError) as refused:
        check(workload)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("gang", "largest"),
    [
        (Gang(Resources(gpus=1), min_workers=33, max_workers=40), "32"),
        (Gang(Resources(gpus=3), min_workers=9, max_workers=9), "8"),
        (Gang(Resources(gpus=1), min_workers=9, max_workers=9, strategy=Strategy.STRICT_PACK), "8"),
        (Gang(Resources(gpus=1), min_workers=5, max_workers=5, strategy=Strategy.STRICT_SPREAD), "4"),
        (Gang(Resources(gpus=1), min_workers=17, max_workers=17, topology="rack"), "16"),
        (Gang(Resources(gpus=0.6), min_workers=33, max_workers=33), "32"),
    ],
)
def test_a_gang_too_large_is_refused_with_the_largest_that_fits(gang: Gang, largest: str) -> None:
    with pytest.raises(AdmissionError, match=f"has {largest}$"):
        check(replace(GOOD, gang=gang))
    check(replace(GOOD, gang=gang), may_grow=True)


def test_dependencies_in_a_circle_are_refused_with_the_circle() -> None:
    with pytest.raises(AdmissionError, match="a -> b -> c -> a"):
        check_dependencies({"a": ["b"], "b": ["c"], "c": ["a"]})


def test_dependencies_on_itself_and_on_nothing_are_refused() -> None:
    with pytest.raises(AdmissionError, match="a -> a"):
        check_dependencies({"a": ["a"]})
    with pytest.raises(AdmissionError, match="ghost"):
        check_dependencies({"a": ["ghost"]})


def test_circles_through_what_exists_are_found_from_the_new_one() -> None:
    links = {"new": ["array"], "array": ["array-0", "array-1"], "array-0": [], "array-1": ["old"], "old": ["new"]}
    with pytest.raises(AdmissionError, match="new -> array -> array-1 -> old -> new"):
        check_dependencies(links, of=["new"])
    check_dependencies(links, of=["array-0"])


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_dependency_that_has_not_succeeded_is_refused(state: str) -> None:
    with pytest.raises(AdmissionError, match=f"new depends on old, which has {state}; submit that again") as refused:
        check_dependencies({"new": ["old"]}, ended={"old": state})
    assert refused.value.code == "dependency_failed"


def test_a_dependency_that_has_succeeded_passes_whatever_it_waited_for() -> None:
    check_dependencies({"new": ["old"], "old": ["ghost"]}, of=["new"], ended={"old": "succeeded"})


def test_a_long_chain_and_a_diamond_pass() -> None:
    check_dependencies({str(n): [str(n + 1)] for n in range(5_000)} | {"5000": []})
    check_dependencies({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []})


def guarantee(gpus: float) -> tuple[tuple[str, float], ...]:
    return (("GPU", gpus),)


OVERLAPPING = (Queue("a", parent="c", guarantee=guarantee(3)), Queue("b", parent="c", guarantee=guarantee(3)))


@pytest.mark.parametrize(
    ("queues", "code"),
    [
        ([Queue("a"), Queue("a")], "queue_twice"),
        ([Queue("a", parent="ghost")], "unknown_queue"),
        ([Queue("a", parent="b"), Queue("b", parent="a")], "cyclic_queues"),
        ([Queue("a", guarantee=guarantee(-1))], "bad_quota"),
        ([Queue("a", guarantee=guarantee(math.nan))], "bad_quota"),
        ([Queue("a", weight=0.0)], "bad_quota"),
        ([Queue("a", guarantee=guarantee(4), lending_limit=guarantee(5))], "bad_quota"),
        ([Queue("c", guarantee=guarantee(4)), Queue("a", parent="c", guarantee=guarantee(5))], "quota_exceeds_cohort"),
        ([Queue("c", guarantee=guarantee(4)), *OVERLAPPING], "quota_exceeds_cohort"),
        ([Queue("a", guarantee=guarantee(20)), Queue("b", guarantee=guarantee(20))], "quota_exceeds_cluster"),
    ],
)
def test_queues_that_contradict_each_other_are_refused(queues: list[Queue], code: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_queues(queues, NODES)
    assert refused.value.code == code


def test_sound_queues_pass() -> None:
    check_queues(
        [
            Queue("c", guarantee=guarantee(16)),
            Queue("a", parent="c", guarantee=guarantee(10), lending_limit=guarantee(2)),
        ],
        NODES,
    )
