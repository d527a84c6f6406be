"""What differs between two documents of queues, for people to see before they put the new one in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlaas.scheduler.wording import amount

if TYPE_CHECKING:
    from mlaas.scheduler.autoscaling.types import NodeType
    from mlaas.scheduler.requests.queues import PriorityClass, QueuesDocument
    from mlaas.scheduler.types import Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChange:
    """One difference."""

    subject: str
    """`queue research`, `priority class high`, `node type gpu-8` or `cluster`."""
    field: str | None
    """None: the subject as a whole was added or removed."""
    before: str | None
    """None: it was not there."""
    after: str | None
    """None: it is not there any more."""
    text: str
    """All of it in one line, with `+`, `-` or `~` in front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedQueues:
    """What putting queues in force has changed, or would change."""

    changes: tuple[QueueChange, ...]
    warnings: tuple[str, ...]
    """What is allowed, and may be a mistake."""


def diff(old: QueuesDocument, new: QueuesDocument) -> tuple[QueueChange, ...]:
    """Return what changes when `new` takes the place of `old`, in the order of the subjects' names."""
    before, after = _facts(old), _facts(new)
    changes: list[QueueChange] = []
    for subject in sorted({*before, *after}):
        was, now = before.get(subject), after.get(subject)
        if was is None or now is None:
            changes.append(_whole(subject, was, now))
        else:
            names = dict.fromkeys((*was, *now))
            changes += [
                _part(subject, name, was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name)
            ]
    return tuple(changes)


def _whole(subject: str, was: dict[str, str] | None, now: dict[str, str] | None) -> QueueChange:
    before, after = (None if facts is None else _listed(facts) for facts in (was, now))
    sign, facts = ("+", after) if before is None else ("-", before)
    return QueueChange(
        subject=subject, field=None, before=before, after=after, text=f"{sign} {subject}: {facts}".removesuffix(": ")
    )


def _part(subject: str, name: str, before: str | None, after: str | None) -> QueueChange:
    text = f"~ {subject}: {name} {before or 'not set'} -> {after or 'not set'}"
    return QueueChange(subject=subject, field=name, before=before, after=after, text=text)


def _listed(facts: dict[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in facts.items())


def _facts(document: QueuesDocument) -> dict[str, dict[str, str]]:
    """What there is to say about each subject, by its name."""
    access = dict(document.tenants)
    limit = document.growth.max_usd_per_hour
    facts = {"cluster": {"default queue": document.default_queue}}
    if limit is not None:
        facts["cluster"]["spend limit"] = f"{limit:.10g} USD per hour"
    facts |= {f"queue {queue.name}": _of_queue(queue, access.get(queue.name)) for queue in document.queues}
    facts |= {f"priority class {each.name}": _of_class(each) for each in document.priority_classes}
    return facts | {f"node type {each.name}": _of_node_type(each) for each in document.growth.node_types}


def _of_queue(queue: Queue, tenants: tuple[str, ...] | None) -> dict[str, str]:
    facts = {
        "parent": queue.parent or "",
        "guarantee": _amounts(queue.guarantee),
        "borrowing limit": _amounts(queue.borrowing_limit),
        "lending limit": _amounts(queue.lending_limit),
        "weight": f"{queue.weight:.10g}",
        "tenants": _tenants(tenants),
    }
    return {name: value for name, value in facts.items() if value}


def _of_class(priority_class: PriorityClass) -> dict[str, str]:
    return {
        "priority": str(priority_class.number),
        "preempts": "yes" if priority_class.preempts else "no",
        "tenants": _tenants(priority_class.tenants),
    }


def _tenants(names: tuple[str, ...] | None) -> str:
    return "all" if names is None else ", ".join(sorted(names))


def _of_node_type(node_type: NodeType) -> dict[str, str]:
    facts = {
        "capacity": _amounts(tuple(node_type.capacity.amounts().items())),
        "labels": ", ".join(f"{key}={value}" for key, value in sorted(node_type.labels)),
        "at most": f"{node_type.max_nodes} nodes",
        "price": f"{node_type.price_usd_per_hour:.10g} USD per hour",
    }
    return {name: value for name, value in facts.items() if value}


def _amounts(amounts: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(amount(name, value) for name, value in sorted(amounts))
