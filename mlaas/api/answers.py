"""What the scheduler says, as callers see it. Times are in ISO 8601 once written as JSON."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from mlaas.scheduler.explanations.view import TenantView
from mlaas.scheduler.requests.queues import SERVING_TENANT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.explanations.explain import Explanation
    from mlaas.scheduler.explanations.plan import Plan
    from mlaas.scheduler.explanations.view import ClusterView
    from mlaas.store.workloads import WorkloadEvent, WorkloadRecord

_OTHERS: Final = "other tenants"
"""What stands for their names."""


def encode_workload(record: WorkloadRecord) -> dict[str, Any]:
    """Return a workload as callers see it; times are in ISO 8601."""
    return {
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "kind": record.kind,
        "queue": record.queue,
        "priority": record.priority,
        "state": record.state,
        "reason": record.reason,
        "submitted_at": record.submitted_at,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "not_before_at": record.not_before_at,
        "yield_by_at": record.yield_by_at,
        "attempt": record.attempt,
        "num_failures": record.num_failures,
        "num_preemptions": record.num_preemptions,
        "attained_s": record.attained_s,
        "placement": record.placement,
        "holder": record.holder,
        "exit_code": record.exit_code,
        "parent_id": record.parent_id,
        "array_index": record.array_index,
        "spec": record.spec,
    }


def encode_event(event: WorkloadEvent) -> dict[str, Any]:
    """Return something that happened to a workload as callers see it."""
    return {
        "number": event.number,
        "workload_id": event.workload_id,
        "at": event.at,
        "kind": event.kind,
        "text": event.text,
        "detail": event.detail,
    }


def encode_told(told: Explanation | Plan) -> dict[str, Any]:
    """Return what the scheduler tells about a workload: as `lines` for people, and field by field for programs."""
    return {"lines": told.lines(), **{field.name: getattr(told, field.name) for field in fields(told)}}


def visible_cluster(view: ClusterView, *, tenant: str | None) -> ClusterView:
    """Return the cluster as a tenant may see it: all nodes and queues, of workloads the own. None: everything.

    Of others' workloads it sees the sums, those of the models' replicas apart: they are what its own wait behind.
    """
    if tenant is None:
        return view
    own = {gang.workload_id for gang in view.gangs if gang.tenant == tenant}
    return replace(
        view,
        nodes=tuple(replace(node, gangs=tuple(gang for gang in node.gangs if gang in own)) for node in view.nodes),
        gangs=tuple(gang for gang in view.gangs if gang.tenant == tenant),
        waiting=tuple(each for each in view.waiting if each.tenant == tenant),
        tenants=tuple(each for each in view.tenants if each.name == tenant),
        others=_sums_of([each for each in view.tenants if each.name != tenant]),
    )


def _sums_of(tenants: Sequence[TenantView]) -> tuple[TenantView, ...]:
    serving = [each for each in tenants if each.name == SERVING_TENANT]
    return tuple(
        TenantView(
            name=name,
            num_running=sum(each.num_running for each in group),
            num_waiting=sum(each.num_waiting for each in group),
            gpus=round(sum(each.gpus for each in group), 4),
            share=sum(each.share for each in group),
        )
        for name, group in ((SERVING_TENANT, serving), (_OTHERS, [each for each in tenants if each not in serving]))
        if group
    )
