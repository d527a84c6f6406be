"""What is refused at the door, so that a decision never meets it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlaas.errors import AdmissionError, ConfigError
from mlaas.scheduler.cluster import ClusterIndex
from mlaas.scheduler.decision.placement import most_workers
from mlaas.scheduler.wording import amount, count

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from mlaas.scheduler.types import Gang, Node, Queue, Resources, Workload

MOST_WORKERS = 100_000
"""No gang has more workers; a larger number is a slip of the keyboard."""
MOST_OF_A_RESOURCE = 1e6
"""No worker needs more of a resource, memory aside."""
MOST_MEMORY_BYTES = 2**50
MOST_SPEED = 1_000.0
"""No accelerator is this much faster than another."""
MOST_PRIORITY = 10_000


def check_workload(
    workload: Workload, *, cluster: ClusterIndex, queues: Collection[str], may_grow: bool = False
) -> None:
    """Refuse a workload that could never run.

    Args:
        workload: What is submitted.
        cluster: The nodes there are.
        queues: Names of the queues that take workloads.
        may_grow: Whether an autoscaler may add nodes; then a gang that does not fit today is accepted.

    Raises:
        AdmissionError: an amount is negative, not a number, absurd or an impossible share; the queue is unknown; no
            node has a label; or the gang is larger than the empty cluster, in which case the message names the
            largest that fits.
    """
    _check_times(workload)
    _check_gang(workload)
    if workload.queue not in queues:
        raise AdmissionError(
            "unknown_queue",
            f"{workload.id}: no queue {workload.queue!r}; there are {', '.join(sorted(queues)) or 'none'}",
        )
    if not may_grow:
        _check_fit(workload, cluster)


def check_dependencies(
    depends_on: Mapping[str, Iterable[str]], *, of: Iterable[str] | None = None, ended: Mapping[str, str] | None = None
) -> None:
    """Refuse workloads that wait for each other in a circle, for one that does not exist, or for one that has failed.

    Args:
        depends_on: For each workload, the workloads that must have succeeded before it; for an array, its indexes.
        of: Those to check, with all that they wait for; None: all.
        ended: The state of those that have ended, by id. They wait for nothing any more, and need not be in
            `depends_on`.

    Raises:
        AdmissionError: there is a circle, named in the message, an unknown workload, or one that has not succeeded.
    """
    ended = ended or {}
    done: set[str] = set()
    for start in depends_on if of is None else of:
        path: dict[str, None] = {}
        stack = [(start, False)]
        while stack:
            workload_id, is_left = stack.pop()
            if is_left:
                done.add(path.popitem()[0])
            elif workload_id in path:
                around = list(path)
                circle = " -> ".join([*around[around.index(workload_id) :], workload_id])
                raise AdmissionError(
                    "cyclic_dependency", f"workloads wait for each other: {circle}; remove one of the links"
                )
            elif workload_id in ended:
                _check_succeeded(workload_id, ended[workload_id], next(reversed(path), workload_id))
            elif workload_id not in depends_on:
                raise AdmissionError(
                    "unknown_dependency",
                    f"{next(reversed(path), start)} depends on {workload_id}, which does not exist; submit it first",
                )
            elif workload_id not in done:
                path[workload_id] = None
                stack.append((workload_id, True))
                stack.extend((needed, False) for needed in depends_on[workload_id])


@dataclass(frozen=True, slots=True)
class QueueFault:
    """Something that is wrong with a set of queues."""

    code: str
    queue: str | None
    """None: it is about all of them together."""
    field: str | None
    text: str


def check_queues(queues: Sequence[Queue], nodes: Sequence[Node] | None = None) -> None:
    """Refuse queues that contradict each other or promise more than there is.

    Args:
        queues: All of them.
        nodes: What they share; None: not known, so that only the queues themselves are looked at.

    Raises:
        ConfigError: a name is used twice, a parent is unknown or its own ancestor, an amount is not a finite positive
            number, a weight is not positive, children are guaranteed more than their cohort names, a lending limit
            exceeds what there is to lend, or all guarantees together exceed the cluster.
    """
    for fault in queue_faults(queues, nodes):
        raise ConfigError(fault.code, fault.text)


def queue_faults(queues: Sequence[Queue], nodes: Sequence[Node] | None = None) -> Iterator[QueueFault]:
    """Yield what `check_queues` refuses; what comes after the first may follow from it."""
    by_name = {queue.name: queue for queue in queues}
    names = [queue.name for queue in queues]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield QueueFault("queue_twice", name, None, f"queues defined twice: {name}; quotas must not overlap")
    for queue in queues:
        yield from _amount_faults(queue)
    for queue in queues:
        fault = _ancestry_fault(queue, by_name)
        if fault is not None:
            yield fault
            return
    for queue in queues:
        yield from _cohort_faults(queue, [child for child in queues if child.parent == queue.name])
    if nodes is not None:
        yield from guarantees_beyond(queues, nodes)


def guarantees_beyond(queues: Sequence[Queue], nodes: Sequence[Node]) -> Iterator[QueueFault]:
    """Yield what queues are guaranteed together and nodes do not have."""
    capacity: dict[str, float] = {}
    for node in nodes:
        for name, value in node.capacity.amounts().items():
            capacity[name] = capacity.get(name, 0.0) + value
    parents = {queue.parent for queue in queues}
    promised: dict[str, float] = {}
    for queue in queues:
        if queue.name not in parents:
            for name, value in queue.guarantee:
                promised[name] = promised.get(name, 0.0) + value
    for name, value in promised.items():
        has = capacity.get(name, 0.0)
        if value > has:
            text = f"queues are guaranteed {amount(name, value)}, and the cluster has {amount(name, has)}"
            yield QueueFault("quota_exceeds_cluster", None, None, text)


def _check_succeeded(workload_id: str, state: str, dependent_id: str) -> None:
    if state != "succeeded":
        raise AdmissionError(
            "dependency_failed",
            f"{dependent_id} depends on {workload_id}, which has {state}; submit that again and depend on the new one",
        )


def _check_times(workload: Workload) -> None:
    for name, value in (
        ("estimate_s", workload.estimate_s),
        ("deadline_s", workload.deadline_s),
        ("min_runtime_s", workload.min_runtime_s),
        ("restart_cost_s", workload.restart_cost_s),
        ("submitted_s", workload.submitted_s),
    ):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise AdmissionError(
                "bad_time", f"{workload.id}: {name} is {value}; it is a finite number of seconds, 0 or more"
            )
    if workload.estimate_s == 0:
        raise AdmissionError("bad_time", f"{workload.id}: estimate_s is 0; leave it out if the runtime is unknown")
    if abs(workload.priority) > MOST_PRIORITY:
        raise AdmissionError(
            "bad_priority", f"{workload.id}: priority {workload.priority} is not within ±{MOST_PRIORITY}"
        )
    if workload.max_retries < 0:
        raise AdmissionError(
            "bad_retries", f"{workload.id}: max_retries is {workload.max_retries}; 0 means one attempt"
        )


def _check_gang(workload: Workload) -> None:
    gang = workload.gang
    if not 1 <= gang.min_workers <= gang.max_workers <= MOST_WORKERS:
        raise AdmissionError(
            "bad_gang",
            f"{workload.id}: {gang.min_workers}..{gang.max_workers} workers; it is 1 <= min <= max <= {MOST_WORKERS}",
        )
    if not gang.worker.amounts():
        raise AdmissionError("bad_resources", f"{workload.id}: a worker that needs no resource cannot be scheduled")
    if not all(0.0 < speed <= MOST_SPEED for _, speed in gang.throughput):
        raise AdmissionError(
            "bad_gang", f"{workload.id}: throughput {dict(gang.throughput)}; each is above 0 and at most {MOST_SPEED:g}"
        )
    _check_resources(workload.id, gang.worker)


def _check_resources(workload_id: str, worker: Resources) -> None:
    names = [name for name, _ in worker.custom]
    twice = sorted({name for name in names if names.count(name) > 1 or name in ("GPU", "CPU", "memory")})
    if twice:
        raise AdmissionError(
            "bad_resources",
            f"{workload_id}: resources name {', '.join(twice)} a second time; use gpus, cpus and memory for those",
        )
    for name, value in worker.amounts().items():
        most = MOST_MEMORY_BYTES if name == "memory" else MOST_OF_A_RESOURCE
        if not (math.isfinite(value) and 0 < value <= most):
            raise AdmissionError(
                "bad_resources", f"{workload_id}: {value} {name} for each worker; it is above 0, at most {most:g}"
            )
        if value < 1e-4:
            raise AdmissionError(
                "bad_resources", f"{workload_id}: {value} {name} is finer than 1/10,000, the smallest amount"
            )
    if worker.gpus > 1 and worker.gpus != int(worker.gpus):
        raise AdmissionError(
            "bad_resources",
            f"{workload_id}: {worker.gpus} GPUs for each worker; it is whole, or a share below 1",
        )


def _check_fit(workload: Workload, cluster: ClusterIndex) -> None:
    gang = workload.gang
    wants_labels = gang.labels or gang.topology is not None
    present = {label for node in cluster.nodes for label in node.labels} if wants_labels else set()
    for key, value in gang.labels:
        if (key, value) not in present:
            values = sorted(have for name, have in present if name == key)
            raise AdmissionError(
                "unknown_label",
                f"{workload.id}: no node has the label {key}={value}; values of {key}: {', '.join(values) or 'none'}",
            )
    if gang.topology is not None and gang.topology not in {key for key, _ in present}:
        raise AdmissionError("unknown_label", f"{workload.id}: no node has the topology label {gang.topology!r}")
    compiled = cluster.gangs[cluster.compile(gang)]
    most = most_workers(cluster.empty(), compiled)
    if most < gang.min_workers:
        raise AdmissionError(
            "gang_too_large", f"{workload.id}: {count(gang.min_workers, 'worker')} of {_text(gang)}; {_largest(most)}"
        )


def _largest(most: int) -> str:
    if not most:
        return "no node of the cluster holds even one"
    return f"the largest gang of such workers that the empty cluster holds has {most}"


def _text(gang: Gang) -> str:
    return " + ".join(amount(name, value) for name, value in gang.worker.amounts().items())


def _amount_faults(queue: Queue) -> Iterator[QueueFault]:
    for field, limits in (
        ("guarantee", queue.guarantee),
        ("borrowing_limit", queue.borrowing_limit),
        ("lending_limit", queue.lending_limit),
    ):
        for name, value in limits:
            if not (math.isfinite(value) and 0 <= value <= MOST_MEMORY_BYTES):
                text = f"queue {queue.name}: {field} of {name} is {value}; it is a finite number, 0 or more"
                yield QueueFault("bad_quota", queue.name, field, text)
    if not (math.isfinite(queue.weight) and queue.weight > 0):
        text = f"queue {queue.name}: weight is {queue.weight}; it is above 0"
        yield QueueFault("bad_quota", queue.name, "weight", text)


def _ancestry_fault(queue: Queue, by_name: Mapping[str, Queue]) -> QueueFault | None:
    seen = [queue.name]
    parent = queue.parent
    while parent is not None:
        if parent not in by_name:
            text = f"queue {seen[-1]}: no parent {parent!r}; define it, or leave `parent` out"
            return QueueFault("unknown_queue", seen[-1], "parent", text)
        if parent in seen:
            text = f"queues are their own ancestors: {' -> '.join([*seen, parent])}"
            return QueueFault("cyclic_queues", queue.name, "parent", text)
        seen.append(parent)
        parent = by_name[parent].parent
    return None


def _cohort_faults(queue: Queue, children: Sequence[Queue]) -> Iterator[QueueFault]:
    """A cohort that names a guarantee owns it; its children's guarantees are parts of it."""
    named = dict(queue.guarantee)
    for name, value in dict(queue.lending_limit).items():
        has = named.get(name, 0.0) + sum(dict(child.guarantee).get(name, 0.0) for child in children)
        if value > has:
            text = f"queue {queue.name}: lends {value:g} {name} and is guaranteed {has:g}; lower `lending_limit`"
            yield QueueFault("bad_quota", queue.name, "lending_limit", text)
    for name, value in named.items():
        promised = sum(dict(child.guarantee).get(name, 0.0) for child in children)
        if children and promised > value:
            text = f"queues below {queue.name} are guaranteed {promised:g} {name}, which has {value:g}; lower theirs"
            yield QueueFault("quota_exceeds_cohort", queue.name, "guarantee", text)
