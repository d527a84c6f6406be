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


DEFAULT_CLASSES: Final = (
    PriorityClass(name="low", number=-100, preempts=False),
    PriorityClass(name="normal", number=0),
    PriorityClass(name="high", number=100),
    PriorityClass(name="serving", number=1_000),
)
"""Those that exist without being named. A file may give them other numbers; `serving` is what replicas run as."""


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
        open_to = [each for each in leaves if tenant in access.get(each, (tenant,))]
        may_use = f"{tenant} may use {', '.join(open_to) or 'none'}"
        if queue in open_to:
            return queue
        if queue in leaves:
            raise AdmissionError("queue_not_allowed", f"queue {queue!r} is not for tenant {tenant}; {may_use}")
        if any(queue == each.name for each in self.queues):
            raise AdmissionError("unknown_queue", f"queue {queue!r} only holds other queues; {may_use}")
        raise AdmissionError("unknown_queue", f"no queue {queue!r}{nearest(queue, open_to)}; {may_use}")

    def class_of(self, name: str) -> PriorityClass:
        """Return a priority class.

        Raises:
            AdmissionError: there is none of this name.
        """
        classes = {each.name: each for each in self.priority_classes}
        if name not in classes:
            there_are = ", ".join(sorted(classes))
            message = f"no priority class {name!r}{nearest(name, classes)}; there are {there_are}"
            raise AdmissionError("unknown_priority_class", message)
        return classes[name]
