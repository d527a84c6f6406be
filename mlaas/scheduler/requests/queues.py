"""How the cluster is divided: queues, who may use them, priority classes and bounds of growth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mlaas.errors import AdmissionError
from mlaas.located import nearest
from mlaas.scheduler.autoscaling.types import Growth
from mlaas.scheduler.types import DEFAULT_QUEUE, Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityClass:
    """A name for how urgent work is."""

    name: str
    number: int
    """Higher goes first, before any other consideration but aging."""
    preempts: bool = True
    """Whether others may have to yield for it; else it waits until there is room."""
    tenants: tuple[str, ...] | None = None
    """Who may use it; None: everybody."""

    def is_open_to(self, tenant: str) -> bool:
        """Return whether a tenant's workloads may be of this class."""
        return self.tenants is None or tenant in self.tenants


SERVING_TENANT: Final = "serving"
"""Whose the replicas of deployed models are."""
SERVING_CLASS: Final = "serving"
"""What they run as."""
DEFAULT_CLASSES: Final = (
    PriorityClass(name="low", number=-100, preempts=False),
    PriorityClass(name="normal", number=0),
    PriorityClass(name="high", number=100),
    PriorityClass(name=SERVING_CLASS, number=1_000, tenants=(SERVING_TENANT,)),
)
"""Those that exist without being named. A file may give them other numbers; `serving` is what replicas run as, and is
kept for them: above it, nobody would ever give machines to a model."""


NO_GROWTH: Final = Growth()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuesDocument:
    """How the cluster is divided. By default one queue takes all, from everybody."""

    queues: tuple[Queue, ...] = (Queue(DEFAULT_QUEUE),)
    tenants: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Who may use a queue, by its name; one that is not named here, everybody."""
    default_queue: str = DEFAULT_QUEUE
    """Where work goes that names no queue, of a tenant that no queue names."""
    priority_classes: tuple[PriorityClass, ...] = DEFAULT_CLASSES
    growth: Growth = NO_GROWTH
    """Nodes that the autoscaler may bring, and what they may cost."""

    def leaves(self) -> tuple[str, ...]:
        """Return the queues that take workloads: those that no other has as its parent."""
        parents = {queue.parent for queue in self.queues}
        return tuple(queue.name for queue in self.queues if queue.name not in parents)

    def queue_for(self, name: str, *, tenant: str) -> str:
        """Return the queue that a tenant's workload goes to: `default` is the first that names the tenant.

        Raises:
            AdmissionError: there is none of this name, it only holds other queues, or it is not for this tenant.
        """
        leaves = self.leaves()
        access = dict(self.tenants)
        queue = name
        if name == DEFAULT_QUEUE and name not in leaves:
            queue = next((each for each in leaves if tenant in access.get(each, ())), self.default_queue)
        open_to = self.queues_for(tenant)
        may_use = f"{tenant} may use {', '.join(open_to) or 'none'}"
        if queue in open_to:
            return queue
        if queue in leaves:
            raise AdmissionError("queue_not_allowed", f"queue {queue!r} is not for tenant {tenant}; {may_use}")
        if any(queue == each.name for each in self.queues):
            raise AdmissionError("unknown_queue", f"queue {queue!r} only holds other queues; {may_use}")
        raise AdmissionError("unknown_queue", f"no queue {queue!r}{nearest(queue, open_to)}; {may_use}")

    def class_of(self, name: str, *, tenant: str) -> PriorityClass:
        """Return a priority class that a tenant asks for.

        Raises:
            AdmissionError: there is none of this name, or it is not for this tenant.
        """
        classes = {each.name: each for each in self.priority_classes}
        open_to = [each.name for each in self.classes_for(tenant)]
        may_use = f"{tenant} may use {', '.join(open_to) or 'none'}"
        if name not in classes:
            message = f"no priority class {name!r}{nearest(name, open_to)}; {may_use}"
            raise AdmissionError("unknown_priority_class", message)
        if name not in open_to:
            message = f"priority class {name!r} is not for tenant {tenant}; {may_use}"
            raise AdmissionError("priority_not_allowed", message)
        return classes[name]

    def queues_for(self, tenant: str) -> tuple[str, ...]:
        """Return the queues that take workloads of a tenant."""
        access = dict(self.tenants)
        return tuple(each for each in self.leaves() if tenant in access.get(each, (tenant,)))

    def classes_for(self, tenant: str) -> tuple[PriorityClass, ...]:
        """Return the priority classes that a tenant may use, the lowest first."""
        return tuple(sorted((each for each in self.priority_classes if each.is_open_to(tenant)), key=_by_number))


def _by_number(priority_class: PriorityClass) -> tuple[int, str]:
    return priority_class.number, priority_class.name
