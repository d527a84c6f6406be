"""Queues, who may use them, priority classes and bounds of growth: `cluster/queues.yaml`. `docs/workloads.md` has all.

What `encode_queues` writes, `parse_queues` reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from mlaas.errors import ConfigError
from mlaas.located import Location, Place, read_documents, validated
from mlaas.scheduler.autoscaling.types import Growth, NodeType
from mlaas.scheduler.requests import quantities
from mlaas.scheduler.requests.fields import Count, Name, Number, Section, Size, Switch, Texts
from mlaas.scheduler.requests.queues import DEFAULT_CLASSES, PriorityClass, QueuesDocument
from mlaas.scheduler.types import DEFAULT_QUEUE, Queue, Resources
from mlaas.scheduler.validation import MOST_PRIORITY, queue_faults

BAD_QUEUES: Final = "bad_queues"
_RAY_NAMES: Final = {"gpus": "GPU", "cpus": "CPU"}
_OUR_NAMES: Final = {ray: ours for ours, ray in _RAY_NAMES.items()}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def _amounts(value: object) -> dict[str, float]:
    """Return amounts by Ray's names."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{quantities.shown(value)} is not a mapping; write `gpus: 8` and the like")
    amounts: dict[str, float] = {}
    for name, each in value.items():
        if name in _OUR_NAMES:
            raise ValueError(f"{name!r} is written {_OUR_NAMES[name]!r}")
        try:
            amount = float(quantities.parse_size(each)) if name == "memory" else quantities.parse_number(each)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        amounts[_RAY_NAMES.get(name, quantities.parse_name(name))] = amount
    return amounts


def _queue_name(value: object) -> str:
    name = quantities.parse_name(value)
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:100]!r} is no name; use 1 to 63 letters, digits, - and _, with a letter or digit first"
        )
    return name


def _tenants(value: object) -> tuple[str, ...]:
    names = quantities.parse_names(value)
    if not names:
        raise ValueError("it names nobody; leave it out for what everybody may use")
    return names


def _priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MOST_PRIORITY:
        raise ValueError(f"{quantities.shown(value)} is not a priority; it is a whole number within ±{MOST_PRIORITY:,}")
    return value


Amounts = Annotated[dict[str, float], BeforeValidator(_amounts)]


class _Queue(Section):
    parent: Name | None = None
    guarantee: Amounts = Field(default_factory=dict)
    borrowing_limit: Amounts = Field(default_factory=dict)
    lending_limit: Amounts = Field(default_factory=dict)
    weight: Number = 1.0
    tenants: Annotated[tuple[str, ...], BeforeValidator(_tenants)] | None = None


class _Class(Section):
    priority: Annotated[int, BeforeValidator(_priority)]
    preempts: Switch = True
    tenants: Annotated[tuple[str, ...], BeforeValidator(_tenants)] | None = None


class _NodeType(Section):
    gpus: Number = 0.0
    cpus: Number = 0.0
    memory: Size = 0
    resources: dict[str, Number] = Field(default_factory=dict)
    labels: Texts = Field(default_factory=dict)
    max_nodes: Count
    usd_per_hour: Number = 0.0


class _Autoscaling(Section):
    max_usd_per_hour: Number | None = None
    node_types: dict[str, _NodeType] = Field(default_factory=dict)


QueueName = Annotated[str, BeforeValidator(_queue_name)]


def _class(value: object) -> object:
    return value if isinstance(value, Mapping) else {"priority": value}


class _Document(Section):
    default_queue: Name | None = None
    priority_classes: dict[QueueName, Annotated[_Class, BeforeValidator(_class)]] = Field(default_factory=dict)
    queues: dict[QueueName, Annotated[_Queue, BeforeValidator(lambda value: {} if value is None else value)]] = Field(
        default_factory=dict
    )
    autoscaling: _Autoscaling = _Autoscaling()


def load_queues(path: Path) -> QueuesDocument:
    """Read a file of queues.

    Raises:
        ConfigError: it is missing, is not YAML, or says something wrong; the message gives line, field and way out.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(BAD_QUEUES, f"cannot read {path}: {error}") from error
    return parse_queues_text(text, origin=str(path))


def parse_queues_text(text: str, *, origin: str) -> QueuesDocument:
    """Return the queues of a YAML text.

    Raises:
        ConfigError: it is not YAML, or says something wrong; the message gives line, field and way out.
    """
    documents = read_documents(text, source=origin, code=BAD_QUEUES)
    if len(documents) != 1:
        raise ConfigError(BAD_QUEUES, f"{origin} holds {len(documents)} documents; queues are one")
    return _read(*documents[0])


def parse_queues(document: object, *, origin: str = "queues") -> QueuesDocument:
    """Return the queues of a decoded document.

    Args:
        document: what YAML or JSON has given.
        origin: where it comes from, for messages.

    Raises:
        ConfigError: it says something wrong; the message gives origin, field and way out.
    """
    return _read(document, lambda _: origin)


def encode_queues(document: QueuesDocument) -> dict[str, Any]:
    """Return the document of queues, with all that is not empty."""
    access = dict(document.tenants)
    growth = document.growth
    return {
        "default_queue": document.default_queue,
        "priority_classes": {
            each.name: _filled(
                priority=each.number,
                preempts=each.preempts,
                tenants=None if each.tenants is None else list(each.tenants),
            )
            for each in document.priority_classes
        },
        "queues": {queue.name: _encode_queue(queue, access.get(queue.name)) for queue in document.queues},
        "autoscaling": _filled(
            max_usd_per_hour=growth.max_usd_per_hour,
            node_types={each.name: _encode_node_type(each) for each in growth.node_types},
        ),
    }


def _encode_queue(queue: Queue, tenants: tuple[str, ...] | None) -> dict[str, Any]:
    return _filled(
        parent=queue.parent,
        guarantee=_ours(queue.guarantee),
        borrowing_limit=_ours(queue.borrowing_limit),
        lending_limit=_ours(queue.lending_limit),
        weight=queue.weight,
        tenants=None if tenants is None else list(tenants),
    )


def _encode_node_type(node_type: NodeType) -> dict[str, Any]:
    capacity = node_type.capacity
    return _filled(
        gpus=capacity.gpus,
        cpus=capacity.cpus,
        memory=capacity.memory_bytes,
        resources=dict(capacity.custom),
        labels=dict(node_type.labels),
        max_nodes=node_type.max_nodes,
        usd_per_hour=node_type.price_usd_per_hour,
    )


def _filled(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != {}}


def _ours(amounts: tuple[tuple[str, float], ...]) -> dict[str, float]:
    return {_OUR_NAMES.get(name, name): amount for name, amount in amounts}


def _read(value: object, place: Place) -> QueuesDocument:
    if not isinstance(value, Mapping):
        message = f"{place(())}: it is a mapping with `queues`, not a {type(value).__name__}"
        raise ConfigError(BAD_QUEUES, message)
    found = validated(value, _Document, code=BAD_QUEUES, place=place)
    queues = tuple(_queue(name, queue) for name, queue in found.queues.items()) or QueuesDocument().queues
    for fault in queue_faults(queues):
        location: Location = tuple(part for part in ("queues", fault.queue, fault.field) if part is not None)
        raise ConfigError(fault.code, f"{place(location)}: {fault.text}")
    classes = {each.name: each for each in DEFAULT_CLASSES}
    for name, each in found.priority_classes.items():
        # Another number for `serving` does not open it to everybody.
        tenants = each.tenants or (classes[name].tenants if name in classes else None)
        classes[name] = PriorityClass(name=name, number=each.priority, preempts=each.preempts, tenants=tenants)
    document = QueuesDocument(
        queues=queues,
        tenants=tuple((name, queue.tenants) for name, queue in found.queues.items() if queue.tenants is not None),
        default_queue=found.default_queue or DEFAULT_QUEUE,
        priority_classes=tuple(classes.values()),
        growth=_growth(found.autoscaling),
    )
    if document.default_queue not in document.leaves():
        why = f"{document.default_queue!r} takes no workloads; name one of {', '.join(document.leaves())}"
        raise ConfigError("bad_default_queue", f"{place(('default_queue',))}: default_queue: {why}")
    return document


def _queue(name: str, queue: _Queue) -> Queue:
    return Queue(
        name,
        parent=queue.parent,
        guarantee=tuple(queue.guarantee.items()),
        borrowing_limit=tuple(queue.borrowing_limit.items()),
        lending_limit=tuple(queue.lending_limit.items()),
        weight=queue.weight,
    )


def _growth(found: _Autoscaling) -> Growth:
    node_types = tuple(
        NodeType(
            name=name,
            capacity=Resources(each.gpus, each.cpus, each.memory, tuple(each.resources.items())),
            labels=tuple(each.labels.items()),
            max_nodes=each.max_nodes,
            price_usd_per_hour=each.usd_per_hour,
        )
        for name, each in found.node_types.items()
    )
    return Growth(node_types=node_types, max_usd_per_hour=found.max_usd_per_hour)
