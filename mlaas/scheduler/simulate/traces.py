"""Job traces from files: what was submitted when, by whom, how wide, and how long it truly ran."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from mlaas.errors import ConfigError
from mlaas.located import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


_CSV_REQUIRED = ("submit_s", "duration_s", "num_gpus")
_CSV_OPTIONAL = ("tenant", "priority", "estimate_s", "deadline_s", "name", "min_gpus", "max_gpus")


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One job of a trace."""

    submit_s: float
    duration_s: float
    num_gpus: float
    tenant: str = "default"
    priority: int = 0
    estimate_s: float | None = None
    deadline_s: float | None = None
    """On the clock of `submit_s`."""
    name: str = ""
    min_gpus: float | None = None
    """Smallest size of an elastic job; None = `num_gpus`. Its speed is proportional to its GPUs."""
    max_gpus: float | None = None
    """Largest size of an elastic job; None = `num_gpus`, at which `duration_s` was taken."""

    @property
    def least_gpus(self) -> float:
        """GPUs without which it does not run."""
        return self.num_gpus if self.min_gpus is None else self.min_gpus

    @property
    def most_gpus(self) -> float:
        """GPUs that it can use."""
        return self.num_gpus if self.max_gpus is None else self.max_gpus

    @property
    def full_duration_s(self) -> float:
        """How long it runs at its largest size."""
        return self.duration_s * self.num_gpus / self.most_gpus


def read_trace(path: Path, *, trace_format: str) -> list[TraceJob]:
    """Return the jobs of a trace in the order of submission, the first at 0 seconds.

    Raises:
        ConfigError: the file does not exist or is empty, the format is unknown, a column is missing, or a row holds
            an impossible value; the message names the line.
    """
    if trace_format not in READERS:
        raise ConfigError("unknown_format", f"no trace format {trace_format!r}; there are {', '.join(READERS)}")
    try:
        jobs = list(READERS[trace_format](path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("trace_unreadable", f"cannot read the trace {path}: {error}") from error
    if not jobs:
        raise ConfigError("trace_empty", f"{path} holds no job")
    start_s = min(job.submit_s for job in jobs)
    jobs.sort(key=lambda job: job.submit_s)
    return [_shifted(job, start_s) for job in jobs]


def unread_columns(path: Path) -> dict[str, str]:
    """Return the columns of a `csv` trace that nothing reads, each with the question whether another was meant."""
    known = (*_CSV_REQUIRED, *_CSV_OPTIONAL)
    with path.open(newline="", encoding="utf-8-sig") as lines:
        return {name: nearest(name, known) for name in next(csv.reader(lines), []) if name not in known}


def _shifted(job: TraceJob, start_s: float) -> TraceJob:
    deadline_s = None if job.deadline_s is None else job.deadline_s - start_s
    return replace(job, submit_s=job.submit_s - start_s, deadline_s=deadline_s)


def _philly(path: Path) -> Iterator[TraceJob]:
    """Microsoft's Philly trace as a table: `timestamp,duration,num_gpus,gpu_time,cluster`; a cluster is a tenant."""
    for where, row in _rows(path, ("timestamp", "duration", "num_gpus")):
        try:
            submit_s = (datetime.fromisoformat(row["timestamp"]) - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001  # a zoneless trace
        except ValueError as error:
            raise ConfigError("trace_value", f"{where}: timestamp {row['timestamp']!r} is no date and time") from error
        yield TraceJob(
            submit_s,
            _positive(row, "duration", where),
            _gpus(row["num_gpus"], where),
            row.get("cluster") or "default",
        )


def _csv(path: Path) -> Iterator[TraceJob]:
    """`submit_s,duration_s,num_gpus` and optionally `tenant,priority,estimate_s,deadline_s,name,min_gpus,max_gpus`.

    `deadline_s` is on the clock of `submit_s`; where one lies before its own submission, the column is read as
    seconds after submission.
    """
    rows = list(_rows(path, _CSV_REQUIRED))
    jobs = [
        TraceJob(
            _number(row, "submit_s", where),
            _positive(row, "duration_s", where),
            _gpus(row["num_gpus"], where),
            row.get("tenant") or "default",
            _priority(row, where),
            _positive(row, "estimate_s", where) if row.get("estimate_s") else None,
            _number(row, "deadline_s", where) if row.get("deadline_s") else None,
            row.get("name") or "",
            *_sizes(row, where),
        )
        for where, row in rows
    ]
    if any(job.deadline_s is not None and job.deadline_s < job.submit_s for job in jobs):
        return (
            job if job.deadline_s is None else replace(job, deadline_s=job.submit_s + job.deadline_s) for job in jobs
        )
    return iter(jobs)


def _swf(path: Path) -> Iterator[TraceJob]:
    """The Standard Workload Format; a processor counts as a GPU, and jobs that never ran are left out.

    Source: Feitelson, "The Standard Workload Format", Parallel Workloads Archive.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.split()
            if not fields or line.lstrip().startswith(";"):
                continue
            where = f"{path}:{number}"
            if len(fields) < 12:
                raise ConfigError("trace_value", f"{where}: an SWF job has 18 fields, this line {len(fields)}")
            row = {str(position): field for position, field in enumerate(fields)}
            runtime_s = _number(row, "3", where)
            processors = max(_number(row, "4", where), _number(row, "7", where) if _number(row, "4", where) <= 0 else 0)
            requested_s = _number(row, "8", where)
            if runtime_s <= 0 or processors <= 0:
                continue
            yield TraceJob(
                _number(row, "1", where), runtime_s, _gpus(str(processors), where), f"user-{fields[11]}",
                estimate_s=requested_s if requested_s > 0 else None,
            )  # fmt: skip


READERS: Mapping[str, Callable[[Path], Iterator[TraceJob]]] = {"philly": _philly, "swf": _swf, "csv": _csv}


def _rows(path: Path, required: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in required if name not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(
                "trace_columns", f"{path} lacks the columns {', '.join(missing)}; it needs {', '.join(required)}"
            )
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise ConfigError("trace_value", f"{where}: the row does not have one value for each column")
            yield where, {name: value.strip() for name, value in row.items()}


def _number(row: Mapping[str, str], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError("trace_value", f"{where}: {name} is {row[name]!r}, not a finite number")
    return value


def _positive(row: Mapping[str, str], name: str, where: str) -> float:
    value = _number(row, name, where)
    if value <= 0:
        raise ConfigError("trace_value", f"{where}: {name} is {row[name]}; a job runs longer than 0 seconds")
    return value


def _priority(row: Mapping[str, str], where: str) -> int:
    value = _number(row, "priority", where) if row.get("priority") else 0.0
    if value != int(value):
        raise ConfigError("trace_value", f"{where}: priority is {row['priority']}, not a whole number")
    return int(value)


def _sizes(row: Mapping[str, str], where: str) -> tuple[float | None, float | None]:
    """Smallest and largest size of an elastic job."""
    least, most = (_gpus(row[name], where, name=name) if row.get(name) else None for name in ("min_gpus", "max_gpus"))
    num_gpus = float(row["num_gpus"])
    if least is None and most is None:
        return None, None
    low, high = least or num_gpus, most or num_gpus
    if not low <= num_gpus <= high or (low, num_gpus, high) != (int(low), int(num_gpus), int(high)):
        raise ConfigError(
            "trace_value", f"{where}: min_gpus {low:g}, num_gpus {num_gpus:g}, max_gpus {high:g}; an elastic job has "
            "whole numbers of GPUs in this order",
        )  # fmt: skip
    return least, most


def _gpus(text: str, where: str, *, name: str = "num_gpus") -> float:
    value = _number({name: text}, name, where)
    if value <= 0:
        raise ConfigError("trace_value", f"{where}: {name} is {text}; a job takes more than none")
    if value > 1 and value != int(value):
        raise ConfigError(
            "trace_value", f"{where}: {name} is {text}; above 1 it is a whole number, below 1 a share of one GPU"
        )
    return value
