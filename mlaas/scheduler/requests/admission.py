"""A workload that is asked for, against the queues, the cluster and the clock. Pure: all of them are passed in."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

import numpy as np

from mlaas.errors import AdmissionError
from mlaas.scheduler.autoscaling.grown import GrownCluster
from mlaas.scheduler.cluster import UNIT, units
from mlaas.scheduler.decision.quota import QueueTree
from mlaas.scheduler.requests.quantities import MOST_INDEXES, MOST_S
from mlaas.scheduler.types import Workload
from mlaas.scheduler.validation import check_workload
from mlaas.scheduler.wording import amount, count

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import ClusterIndex
    from mlaas.scheduler.requests.queues import QueuesDocument
    from mlaas.scheduler.requests.spec import Command, WorkloadSpec

MOST_RETRIES: Final = 1_000
MOST_GRACE_S: Final = 3_600.0
"""Whoever needs a machine back waits no longer than an hour for it."""
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_submission_id(submission_id: str) -> None:
    """Refuse an id that could not name leases, placement groups and folders.

    Raises:
        AdmissionError: it is too long, or has other characters than letters, digits, `-` and `_`.
    """
    if not _ID.fullmatch(submission_id):
        message = (
            f"{submission_id[:130]!r} cannot be an id; use 1 to 128 letters, digits, - and _, a letter or digit first"
        )
        raise AdmissionError("bad_workload_id", message)


def admit(
    spec: WorkloadSpec,
    *,
    workload_id: str,
    tenant: str,
    submitted_s: float,
    cluster: ClusterIndex,
    queues: QueuesDocument,
) -> Workload:
    """Return what a spec asks for as decisions know it; of an array, one that stands for all indexes.

    Args:
        spec: What is asked for.
        workload_id: Its id.
        tenant: Who asks.
        submitted_s: When, on the clock of the records.
        cluster: The nodes there are.
        queues: How they are divided, and how far the cluster may grow.

    Raises:
        AdmissionError: it could never run, is not allowed, or contradicts itself; the message gives the way out.
    """
    check_submission_id(workload_id)
    _check_times(spec, workload_id, submitted_s)
    _check_array(spec, workload_id)
    if spec.command is not None:
        _check_command(spec.command, workload_id)
    queue = queues.queue_for(spec.queue, tenant=tenant)
    urgency = queues.class_of(spec.priority_class, tenant=tenant)
    workload = to_workload(
        spec,
        workload_id=workload_id,
        tenant=tenant,
        queue=queue,
        priority=urgency.number,
        preempts=urgency.preempts,
        submitted_s=submitted_s,
    )
    _check_size(workload, cluster, queues)
    _check_quota(workload, queues)
    return workload


def to_workload(
    spec: WorkloadSpec,
    *,
    workload_id: str,
    tenant: str,
    queue: str,
    priority: int,
    preempts: bool,
    submitted_s: float,
) -> Workload:
    """Return a spec as decisions know it, without a check."""
    return Workload(
        id=workload_id,
        gang=spec.gang,
        submitted_s=submitted_s,
        tenant=tenant,
        queue=queue,
        kind=spec.kind,
        name=spec.name,
        priority=priority,
        preemptible=spec.preemptible,
        preempts=preempts,
        estimate_s=spec.estimate_s,
        deadline_s=_deadline_s(spec, submitted_s),
        min_runtime_s=spec.min_runtime_s,
        restart_cost_s=spec.restart_cost_s,
        max_retries=spec.retries.max_retries,
        depends_on=spec.depends_on,
    )


def _deadline_s(spec: WorkloadSpec, submitted_s: float) -> float | None:
    if spec.deadline_at is not None:
        return spec.deadline_at.timestamp()
    return None if spec.deadline_s is None else submitted_s + spec.deadline_s


def _check_times(spec: WorkloadSpec, workload_id: str, submitted_s: float) -> None:
    for name, value, most in (
        ("estimate", spec.estimate_s, MOST_S),
        ("deadline", spec.deadline_s, MOST_S),
        ("min_runtime", spec.min_runtime_s, MOST_S),
        ("restart_cost", spec.restart_cost_s, MOST_S),
        ("yield_grace", spec.yield_grace_s, MOST_GRACE_S),
        ("retries.backoff", spec.retries.backoff_s, MOST_S),
        ("retries.max_backoff", spec.retries.max_backoff_s, MOST_S),
    ):
        if value is not None and not (math.isfinite(value) and 0 <= value <= most):
            message = f"{workload_id}: {name} is {value} s; it is a finite time from 0 to {most:,.0f} s"
            raise AdmissionError("bad_time", message)
    if not 0 <= spec.retries.max_retries <= MOST_RETRIES:
        message = f"{workload_id}: retries.max is {spec.retries.max_retries}; it is from 0 to {MOST_RETRIES:,}"
        raise AdmissionError("bad_retries", message)
    if spec.deadline_s is not None and spec.deadline_at is not None:
        raise AdmissionError("bad_time", f"{workload_id}: it has a deadline_s and a deadline_at; give one of them")
    deadline_s = _deadline_s(spec, submitted_s)
    if deadline_s is not None and deadline_s <= submitted_s:
        late = (
            f"{spec.deadline_at:%Y-%m-%d %H:%M:%S %Z} is" if spec.deadline_at is not None else "0 s after submission is"
        )
        message = f"{workload_id}: deadline {late} not in the future; give a later one, or leave it out"
        raise AdmissionError("deadline_passed", message)


def _check_array(spec: WorkloadSpec, workload_id: str) -> None:
    if len(spec.array) > MOST_INDEXES:
        message = f"{workload_id}: the array has {len(spec.array):,} indexes, at most {MOST_INDEXES:,}; submit several"
        raise AdmissionError("array_too_large", message)
    if len(set(spec.array)) < len(spec.array) or any(index < 0 for index in spec.array):
        message = f"{workload_id}: the indexes of an array are whole numbers from 0 up, each named once"
        raise AdmissionError("bad_array", message)


def _check_command(command: Command, workload_id: str) -> None:
    if not command.argv or not command.argv[0]:
        raise AdmissionError("bad_command", f"{workload_id}: the command names no program")
    for name, _ in command.environment:
        if not _VARIABLE.fullmatch(name):
            message = f"{workload_id}: environment: {name[:100]!r} is no name of a variable; use letters, digits and _"
            raise AdmissionError("bad_command", message)
    if any("\0" in text for text in (*command.argv, *(value for _, value in command.environment))):
        raise AdmissionError("bad_command", f"{workload_id}: the command or its environment holds a zero byte")


def _check_size(workload: Workload, cluster: ClusterIndex, queues: QueuesDocument) -> None:
    """Refuse what neither the empty cluster nor the one that it may grow to can hold."""
    leaves, growth = queues.leaves(), queues.growth
    try:
        check_workload(workload, cluster=cluster, queues=leaves)
    except AdmissionError as error:
        if error.code not in ("gang_too_large", "unknown_label") or not growth.node_types:
            raise
        grown = GrownCluster(cluster, growth)
        check_workload(workload, cluster=grown.index, queues=leaves)
        most = grown.most_workers(workload.gang)
        if most < workload.gang.min_workers:
            message = f"{error.message}, and {most} once it has grown as far as node types and spend limit allow"
            raise AdmissionError("gang_too_large", message) from error


def _check_quota(workload: Workload, queues: QueuesDocument) -> None:
    """Refuse what is more than its queue may use even when nobody else uses anything."""
    needs = workload.gang.worker.amounts()
    tree = QueueTree(queues.queues, tuple(needs))
    unused = tree.usage(np.zeros((len(queues.queues), len(needs)), dtype=np.int64))
    for column, (name, need) in enumerate(needs.items()):
        total = need * workload.gang.min_workers
        most = unused.available(tree.row_of[workload.queue], column)
        if units(total) > most:
            workers = count(workload.gang.min_workers, "worker")
            message = (
                f"{workload.id}: queue {workload.queue} may use at most {amount(name, most / UNIT)}, and {workers} "
                f"{'needs' if workload.gang.min_workers == 1 else 'need'} {amount(name, total)}; ask for less, "
                "choose another queue, or have its limits raised"
            )
            raise AdmissionError("beyond_quota", message)
