"""Workloads as documents: YAML and JSON that people write, and what the store keeps. `docs/workloads.md` describes it.

There is one format. What `encode_spec` writes, `parse_spec` reads, so what the store or the API shows of a workload
can be submitted again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from mlaas.errors import ConfigError
from mlaas.located import Location, Place, read_documents, validated
from mlaas.scheduler.requests import quantities
from mlaas.scheduler.requests.fields import Count, Duration, Name, Names, Number, Section, Size, Switch, Texts
from mlaas.scheduler.requests.spec import DEFAULT_YIELD_GRACE_S, Command, Retries, WorkloadSpec
from mlaas.scheduler.types import DEFAULT_QUEUE, Gang, Kind, Resources, Strategy

BAD_WORKLOAD = "bad_workload"


class _Retries(Section):
    max: Count = Retries().max_retries
    backoff: Duration = Retries().backoff_s
    max_backoff: Duration = Retries().max_backoff_s


def _retries(value: object) -> object:
    return value if isinstance(value, Mapping | _Retries) else {"max": value}


class _Workload(Section):
    name: Annotated[str, BeforeValidator(quantities.parse_text)] = ""
    kind: Annotated[Kind, BeforeValidator(partial(quantities.parse_choice, choices=Kind))] = Kind.JOB
    queue: Name = DEFAULT_QUEUE
    priority: Name = "normal"
    workers: Annotated[tuple[int, int], BeforeValidator(quantities.parse_workers)] = (1, 1)
    gpus: Number = 0.0
    cpus: Number = 1.0
    memory: Size = 0
    resources: dict[str, Number] = Field(default_factory=dict)
    labels: Texts = Field(default_factory=dict)
    throughput: dict[str, Number] = Field(default_factory=dict)
    strategy: Annotated[Strategy, BeforeValidator(partial(quantities.parse_choice, choices=Strategy))] = Strategy.PACK
    topology: Name | None = None
    preemptible: Switch = True
    estimate: Duration | None = None
    deadline: Annotated[float | datetime, BeforeValidator(quantities.parse_deadline)] | None = None
    min_runtime: Duration | None = None
    restart_cost: Duration = 0.0
    yield_grace: Duration = DEFAULT_YIELD_GRACE_S
    retries: Annotated[_Retries, BeforeValidator(_retries)] = _Retries()
    depends_on: Names = ()
    array: Annotated[tuple[int, ...], BeforeValidator(quantities.parse_array)] = ()
    command: Annotated[tuple[str, ...], BeforeValidator(quantities.parse_command)] | None = None
    environment: Texts = Field(default_factory=dict)
    working_dir: Name | None = None


def parse_spec(document: Mapping[str, Any], *, origin: str = "workload") -> WorkloadSpec:
    """Return the workload that a document asks for.

    Args:
        document: fields as YAML, JSON or flags give them.
        origin: where it comes from, for messages.

    Raises:
        ConfigError: a field is unknown or has a bad value; the message gives origin, field, value and the way out.
    """
    return _read(document, lambda _: origin)


def parse_specs(text: str, *, origin: str) -> tuple[WorkloadSpec, ...]:
    """Return the workloads of a YAML text: one, several with `---` between them, or a list.

    Raises:
        ConfigError: it is not YAML, holds no workload, or as in `parse_spec`; the message gives the line.
    """
    specs: list[WorkloadSpec] = []
    for value, place in read_documents(text, source=origin, code=BAD_WORKLOAD):
        entries: list[tuple[Any, Location]] = (
            [(each, (n,)) for n, each in enumerate(value)] if isinstance(value, list) else [(value, ())]
        )
        for fields, start in entries:
            specs.append(_read(fields, partial(_within, place, start)))
    if not specs:
        raise ConfigError(BAD_WORKLOAD, f"{origin} holds no workload; docs/workloads.md shows how one looks")
    return tuple(specs)


def encode_spec(spec: WorkloadSpec) -> dict[str, Any]:
    """Return the document of a workload, in seconds and bytes, with all that is not empty."""
    gang, worker, command = spec.gang, spec.gang.worker, spec.command
    sizes = (gang.min_workers, gang.max_workers)
    fields: dict[str, Any] = {
        "name": spec.name or None,
        "kind": spec.kind.value,
        "queue": spec.queue,
        "priority": spec.priority_class,
        "workers": f"{sizes[0]}..{sizes[1]}" if gang.is_elastic else sizes[0],
        "gpus": worker.gpus,
        "cpus": worker.cpus,
        "memory": worker.memory_bytes,
        "resources": dict(worker.custom) or None,
        "labels": dict(gang.labels) or None,
        "throughput": dict(gang.throughput) or None,
        "strategy": gang.strategy.value,
        "topology": gang.topology,
        "preemptible": spec.preemptible,
        "estimate": spec.estimate_s,
        "deadline": spec.deadline_s if spec.deadline_at is None else spec.deadline_at.isoformat(),
        "min_runtime": spec.min_runtime_s,
        "restart_cost": spec.restart_cost_s,
        "yield_grace": spec.yield_grace_s,
        "retries": {
            "max": spec.retries.max_retries,
            "backoff": spec.retries.backoff_s,
            "max_backoff": spec.retries.max_backoff_s,
        },
        "depends_on": list(spec.depends_on) or None,
        "array": quantities.format_array(spec.array) if spec.array else None,
        "command": None if command is None else list(command.argv),
        "environment": None if command is None else dict(command.environment) or None,
        "working_dir": None if command is None else command.working_dir,
    }
    return {name: value for name, value in fields.items() if value is not None}


def decode_spec(document: Mapping[str, Any]) -> WorkloadSpec:
    """Return the workload that `encode_spec` has written.

    Raises:
        ConfigError: it was written by another version, whose fields this one does not know.
    """
    return parse_spec(document, origin="a stored workload")


def _within(place: Place, start: Location, location: Location) -> str:
    return place((*start, *location))


def _read(fields: object, place: Place) -> WorkloadSpec:
    if not isinstance(fields, Mapping):
        message = f"{place(())}: a workload is a mapping of fields, such as `gpus: 1`, not a {type(fields).__name__}"
        raise ConfigError(BAD_WORKLOAD, message)
    found = validated(fields, _Workload, code=BAD_WORKLOAD, place=place)
    if found.command is None and (found.environment or found.working_dir is not None):
        field = "environment" if found.environment else "working_dir"
        message = f"{place((field,))}: {field}: it is part of a command, and there is none; give `command` too"
        raise ConfigError(BAD_WORKLOAD, message)
    return _spec(found)


def _spec(found: _Workload) -> WorkloadSpec:
    worker = Resources(found.gpus, found.cpus, found.memory, tuple(found.resources.items()))
    least, most = found.workers
    labels, throughput = tuple(found.labels.items()), tuple(found.throughput.items())
    gang = Gang(worker, least, most, found.strategy, found.topology, labels, throughput)
    command = None
    if found.command is not None:
        environment = tuple(found.environment.items())
        command = Command(argv=found.command, environment=environment, working_dir=found.working_dir)
    deadline = found.deadline
    return WorkloadSpec(
        gang=gang,
        kind=found.kind,
        name=found.name,
        queue=found.queue,
        priority_class=found.priority,
        preemptible=found.preemptible,
        estimate_s=found.estimate,
        deadline_s=None if isinstance(deadline, datetime) else deadline,
        deadline_at=deadline if isinstance(deadline, datetime) else None,
        min_runtime_s=found.min_runtime,
        restart_cost_s=found.restart_cost,
        yield_grace_s=found.yield_grace,
        retries=Retries(
            max_retries=found.retries.max, backoff_s=found.retries.backoff, max_backoff_s=found.retries.max_backoff
        ),
        depends_on=found.depends_on,
        array=found.array,
        command=command,
    )
