import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mlaas.errors import AdmissionError
from mlaas.scheduler.autoscaling.types import Growth, NodeType
from mlaas.scheduler.cluster import ClusterIndex
from mlaas.scheduler.requests.admission import admit, check_submission_id
from mlaas.scheduler.requests.quantities import MOST_INDEXES
from mlaas.scheduler.requests.queues import QueuesDocument
from mlaas.scheduler.requests.spec import Command, Retries, WorkloadSpec
from mlaas.scheduler.types import Gang, Kind, Node, Queue, Resources, Workload

NOW = datetime(2026, 11, 23, 5, tzinfo=UTC)
CLUSTER = ClusterIndex([Node(f"n{n}", Resources(gpus=8, cpus=64), (("accelerator", "a100"),)) for n in range(4)])
QUEUES = QueuesDocument(
    queues=(Queue("all"), Queue("a", "all"), Queue("b", "all")), tenants=(("b", ("x",)),), default_queue="a"
)
BIG = NodeType(
    name="big",
    capacity=Resources(gpus=16, cpus=64),
    labels=(("accelerator", "h100"),),
    max_nodes=3,
    price_usd_per_hour=10,
)
GROWING = replace(QUEUES, growth=Growth(node_types=(BIG,)))
SPEC = WorkloadSpec(gang=Gang(Resources(gpus=1, cpus=1)), command=Command(argv=("true",)))


def ask(spec: WorkloadSpec, *, tenant: str = "x", workload_id: str = "w", queues: QueuesDocument = QUEUES) -> Workload:
    return admit(
        spec, workload_id=workload_id, tenant=tenant, submitted_s=NOW.timestamp(), cluster=CLUSTER, queues=queues
    )


def test_what_is_asked_for_is_what_decisions_know() -> None:
    spec = replace(
        SPEC,
        kind=Kind.TUNE,
        name="sweep",
        queue="b",
        priority_class="high",
        preemptible=False,
        estimate_s=60.0,
        deadline_s=120.0,
        min_runtime_s=5.0,
        restart_cost_s=3.0,
        retries=Retries(max_retries=2),
        depends_on=("before",),
    )
    assert ask(spec) == Workload(
        id="w",
        gang=spec.gang,
        submitted_s=NOW.timestamp(),
        tenant="x",
        queue="b",
        kind=Kind.TUNE,
        name="sweep",
        priority=100,
        preemptible=False,
        estimate_s=60.0,
        deadline_s=NOW.timestamp() + 120.0,
        min_runtime_s=5.0,
        restart_cost_s=3.0,
        max_retries=2,
        depends_on=("before",),
    )


def test_a_class_says_whether_others_yield() -> None:
    assert not ask(replace(SPEC, priority_class="low")).preempts
    assert ask(replace(SPEC, priority_class="normal")).preempts


def test_a_date_is_a_deadline_as_it_stands() -> None:
    late = datetime(2026, 12, 1, tzinfo=UTC)
    assert ask(replace(SPEC, deadline_at=late)).deadline_s == late.timestamp()


def test_work_that_names_no_queue_goes_to_the_tenant_s_or_the_default_one() -> None:
    assert ask(SPEC).queue == "b"
    assert ask(SPEC, tenant="y").queue == "a"


@pytest.mark.parametrize(
    ("spec", "code", "reason"),
    [
        (replace(SPEC, queue="c"), "unknown_queue", "no queue 'c'"),
        (replace(SPEC, queue="all"), "unknown_queue", "only holds other queues"),
        (replace(SPEC, priority_class="top"), "unknown_priority_class", "no priority class 'top'"),
        (replace(SPEC, estimate_s=-1.0), "bad_time", r"estimate is -1\.0 s"),
        (replace(SPEC, estimate_s=math.nan), "bad_time", "estimate is nan s"),
        (replace(SPEC, estimate_s=1e12), "bad_time", "estimate is 1000000000000.0 s"),
        (replace(SPEC, min_runtime_s=math.inf), "bad_time", "min_runtime is inf s"),
        (replace(SPEC, restart_cost_s=-1.0), "bad_time", "restart_cost is"),
        (replace(SPEC, yield_grace_s=7200.0), "bad_time", "yield_grace is 7200.0 s; it is .* to 3,600"),
        (replace(SPEC, retries=Retries(backoff_s=math.nan)), "bad_time", r"retries\.backoff is nan"),
        (replace(SPEC, retries=Retries(max_backoff_s=-1)), "bad_time", r"retries\.max_backoff is -1"),
        (replace(SPEC, retries=Retries(max_retries=-1)), "bad_retries", "from 0 to 1,000"),
        (replace(SPEC, retries=Retries(max_retries=10**6)), "bad_retries", "from 0 to 1,000"),
        (replace(SPEC, deadline_s=0.0), "deadline_passed", "0 s after submission is not in the future"),
        (replace(SPEC, deadline_at=NOW), "deadline_passed", "2026-11-23 05:00:00 UTC is not in the future"),
        (replace(SPEC, deadline_s=1.0, deadline_at=NOW), "bad_time", "give one of them"),
        (replace(SPEC, array=tuple(range(MOST_INDEXES + 1))), "array_too_large", "10,001 indexes, at most 10,000"),
        (replace(SPEC, array=(1, 1)), "bad_array", "each named once"),
        (replace(SPEC, array=(-1,)), "bad_array", "whole numbers from 0"),
        (replace(SPEC, command=Command(argv=())), "bad_command", "names no program"),
        (replace(SPEC, command=Command(argv=("a\0",))), "bad_command", "zero byte"),
        (replace(SPEC, command=Command(argv=("a",), environment=(("A=B", "c"),))), "bad_command", "'A=B' is no name"),
        (replace(SPEC, gang=Gang(Resources(gpus=math.nan))), "bad_resources", "nan GPU"),
        (replace(SPEC, gang=Gang(Resources(gpus=1), min_workers=33, max_workers=33)), "gang_too_large", "has 32$"),
        (replace(SPEC, gang=Gang(Resources(1), labels=(("accelerator", "h100"),))), "unknown_label", ": a100$"),
    ],
)  # fmt: skip
def test_what_could_never_run_is_refused_with_the_reason(spec: WorkloadSpec, code: str, reason: str) -> None:
    with pytest.raises(AdmissionError, match=reason) as refused:
        ask(spec)
    assert refused.value.code == code


def test_a_tenant_stays_out_of_queues_of_others() -> None:
    with pytest.raises(AdmissionError, match="queue 'b' is not for tenant y; y may use a") as refused:
        ask(replace(SPEC, queue="b"), tenant="y")
    assert refused.value.code == "queue_not_allowed"


@pytest.mark.parametrize(("workers", "is_refused"), [(8, False), (9, True)])
def test_a_gang_beyond_what_its_queue_may_ever_use_is_refused(workers: int, is_refused: bool) -> None:
    limits = (Queue("a", "all", guarantee=(("GPU", 6.0),), borrowing_limit=(("GPU", 2.0),)), Queue("b", "all"))
    queues = replace(QUEUES, queues=(Queue("all", guarantee=(("GPU", 32.0),)), *limits))
    spec = replace(SPEC, queue="a", gang=Gang(Resources(gpus=1, cpus=1), min_workers=workers, max_workers=16))
    if not is_refused:
        assert ask(spec, queues=queues).queue == "a"
        return
    with pytest.raises(AdmissionError, match="queue a may use at most 8 GPUs, and 9 workers need 9 GPUs") as refused:
        ask(spec, queues=queues)
    assert refused.value.code == "beyond_quota"


def test_a_gang_that_the_autoscaler_can_bring_is_accepted() -> None:
    wide = replace(SPEC, gang=Gang(Resources(gpus=1), min_workers=32 + 48, max_workers=32 + 48))
    new = replace(SPEC, gang=Gang(Resources(gpus=16), labels=(("accelerator", "h100"),)))
    for spec in (wide, new):
        with pytest.raises(AdmissionError):
            ask(spec)
        ask(spec, queues=GROWING)


def test_a_gang_beyond_all_growth_is_refused_with_the_largest() -> None:
    spec = replace(SPEC, gang=Gang(Resources(gpus=1), min_workers=81, max_workers=81))
    with pytest.raises(AdmissionError, match=r"has 80$"):
        ask(spec, queues=GROWING)
    thrifty = replace(QUEUES, growth=Growth(node_types=(BIG,), max_usd_per_hour=20))
    spec = replace(SPEC, gang=Gang(Resources(gpus=1), min_workers=65, max_workers=65))
    with pytest.raises(
        AdmissionError, match="has 32, and 64 once it has grown as far as node types and spend limit allow"
    ):
        ask(spec, queues=thrifty)


@pytest.mark.parametrize("workload_id", ["", "-a", "a.1", "a/b", "a b", "x" * 129, "a\n", "é"])
def test_an_id_that_could_not_name_a_folder_is_refused(workload_id: str) -> None:
    with pytest.raises(AdmissionError, match="cannot be an id; use 1 to 128"):
        check_submission_id(workload_id)


def test_usual_ids_pass() -> None:
    for workload_id in ("w-0123456789ab", "A_b-1", "7", "x" * 128):
        check_submission_id(workload_id)
