"""The cluster of a simulation: so many equal nodes, or a cluster file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlaas.errors import ConfigError
from mlaas.scheduler.types import Gang, Node, Queue, Resources
from mlaas.scheduler.validation import check_queues

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mlaas.scheduler.simulate.traces import TraceJob

COHORT = "cluster"
"""The cohort that tenants share when a cluster file names no queues."""


@dataclass(frozen=True, slots=True)
class Machines:
    """Nodes and queues of a simulated cluster."""

    nodes: tuple[Node, ...]
    queues: tuple[Queue, ...] = ()
    """Empty: one queue for each tenant, equal, sharing all."""

    @property
    def gpus_per_node(self) -> int:
        """GPUs of the largest node."""
        return int(max(node.capacity.gpus for node in self.nodes))


def equal_nodes(*, num_nodes: int, gpus_per_node: int) -> Machines:
    """Return a cluster of equal nodes.

    Raises:
        ConfigError: a number is not positive.
    """
    if num_nodes < 1 or gpus_per_node < 1:
        raise ConfigError(
            "cluster_size", f"{num_nodes} nodes x {gpus_per_node} GPUs is no cluster; both are at least 1"
        )
    return Machines(tuple(Node(f"node-{number:04}", Resources(gpus=gpus_per_node)) for number in range(num_nodes)))


def read_machines(path: Path) -> Machines:
    """Return the cluster of a YAML file.

    It has `nodes`, a list of groups with `count`, `gpus`, `cpus`, `memory_gib`, `labels` and `name`; and optionally
    `queues`, each with `name`, `parent`, `guarantee`, `borrowing_limit`, `lending_limit` and `weight`.

    Raises:
        ConfigError: the file cannot be read, or a field is missing or wrong.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError("cluster_file", f"cannot read the cluster file {path}: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
        raise ConfigError("cluster_file", f"{path} needs `nodes`, a list of groups such as {{count: 4, gpus: 8}}")
    try:
        nodes = [node for number, group in enumerate(document["nodes"]) for node in _group(number, group)]
        queues = tuple(_queue(entry) for entry in document.get("queues") or ())
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ConfigError("cluster_file", f"{path}: a group or queue is wrong: {error!r}") from error
    if not any(node.capacity.gpus for node in nodes):
        raise ConfigError("cluster_file", f"{path} describes no GPU")
    check_queues(queues, nodes)
    return Machines(tuple(nodes), queues)


def queues_for(machines: Machines, tenants: Iterable[str]) -> tuple[Queue, ...]:
    """Return the queues of a replay: those of the cluster file, and an equal one for each further tenant."""
    named = {queue.name for queue in machines.queues}
    further = [tenant for tenant in sorted(set(tenants)) if tenant not in named]
    if not further:
        return machines.queues
    cohort = COHORT
    while cohort in named or cohort in further:
        cohort += "_"
    return (*machines.queues, Queue(cohort), *(Queue(tenant, parent=cohort) for tenant in further))


def gang_of(job: TraceJob, *, gpus_per_node: int) -> Gang:
    """Return the gang of a trace's job: on one node if it fits there, else in equal workers that can fill nodes.

    An elastic job has workers of the largest size that divides its smallest and its largest.
    """
    least, most = job.least_gpus, job.most_gpus
    if least == most and most <= gpus_per_node:
        return Gang(Resources(gpus=most))
    worker = math.gcd(int(least), int(most), gpus_per_node)
    return Gang(Resources(gpus=worker), min_workers=int(least) // worker, max_workers=int(most) // worker)


def _group(number: int, group: dict[str, Any]) -> list[Node]:
    known = {"count", "gpus", "cpus", "memory_gib", "labels", "name"}
    if unknown := group.keys() - known:
        raise ValueError(f"unknown fields {sorted(unknown)}; there are {sorted(known)}")
    gpus = group.get("gpus", 0)
    if gpus != int(gpus) or gpus < 0:
        raise ValueError(f"gpus is {gpus}; a node has a whole number of them")
    capacity = Resources(
        gpus=int(gpus), cpus=float(group.get("cpus", 0)), memory_bytes=int(float(group.get("memory_gib", 0)) * 2**30)
    )
    labels = tuple(sorted((str(key), str(value)) for key, value in (group.get("labels") or {}).items()))
    name = str(group.get("name", f"group-{number}"))
    return [Node(f"{name}-{index:04}", capacity, labels) for index in range(int(group.get("count", 1)))]


def _queue(entry: dict[str, Any]) -> Queue:
    def limits(name: str) -> tuple[tuple[str, float], ...]:
        return tuple(sorted((str(key), float(value)) for key, value in (entry.get(name) or {}).items()))

    return Queue(
        str(entry["name"]),
        parent=entry.get("parent"),
        guarantee=limits("guarantee"),
        borrowing_limit=limits("borrowing_limit"),
        lending_limit=limits("lending_limit"),
        weight=float(entry.get("weight", 1.0)),
    )
