"""A run's progress as one append-only file: written by rank 0, read by whoever shows, logs or draws it.

A line is the JSON of a `Progress` with its time, or `{"resumed_after": step}`: what was reported beyond that step is
done again and does not count; or `{"left_after": step}`: the workers have left, and a checkpoint holds all they did.
Appending only, a killed writer can at worst leave one torn line, which readers skip.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is, as reported every `log_every` steps."""

    step: int
    """Optimizer steps done."""
    steps: int
    """Optimizer steps of the whole run, as now planned."""
    loss: float
    """Mean cross-entropy since the last report, over all workers, in nats for each token."""
    learning_rate: float
    """Learning rate of the weight matrices in the last step."""
    tokens_per_s: float
    """Tokens trained on since the last report, over all workers, for each second."""
    elapsed_s: float
    """Training time of the whole run, over all resumes."""

    @property
    def eta_s(self) -> float:
        """Seconds of training left at the run's mean pace."""
        return self.elapsed_s / self.step * (self.steps - self.step)

    def describe(self) -> str:
        """Return one line for people."""
        minutes, seconds = divmod(round(self.eta_s), 60)
        return (
            f"step {self.step:>{len(str(self.steps))}}/{self.steps}  loss {self.loss:.3f}  "
            f"{self.tokens_per_s:,.0f} tokens/s  ETA {minutes}:{seconds:02d}"
        )


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """The run went on after a step, from a checkpoint."""

    step: int
    """Optimizer steps that the checkpoint has seen; 0 for a fresh start."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """The workers have left, as they were asked to."""

    step: int
    """Optimizer steps that their checkpoint has seen."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the file."""

    time_ms: int
    """When it was written, in Unix time."""
    event: Progress | Resumed | Left
    """What happened."""


class ProgressFile:
    """The writing end, which the training loop reports to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def resume(self, *, step: int) -> None:
        """Note that the run goes on after `step`; what was reported beyond it is done again."""
        if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
            self._append("\n")
        self._append(json.dumps({"time_ms": _now_ms(), "resumed_after": step}) + "\n")

    def report(self, progress: Progress) -> None:
        """Note how far the run is."""
        self._append(json.dumps({"time_ms": _now_ms(), **asdict(progress)}) + "\n")

    def leave(self, *, step: int) -> None:
        """Note that the workers leave after `step`, and that a checkpoint holds it."""
        self._append(json.dumps({"time_ms": _now_ms(), "left_after": step}) + "\n")

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)


class ProgressReader:
    """The reading end: each call returns the entries that were added since the last."""

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        self._path = path
        self._offset = offset

    def read_new(self) -> list[Entry]:
        """Return new whole entries, oldest first."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return list(_parse(whole.splitlines()))


def read_curve(path: Path) -> list[Progress]:
    """Return the progress that counts: each step once, ascending, without what a resume did again."""
    curve: list[Progress] = []
    for entry in ProgressReader(path).read_new():
        if isinstance(entry.event, Resumed):
            curve = [progress for progress in curve if progress.step <= entry.event.step]
        elif isinstance(entry.event, Progress):
            curve.append(entry.event)
    return curve


def _parse(lines: list[bytes]) -> Iterator[Entry]:
    for line in lines:
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        time_ms = fields.pop("time_ms")
        if "resumed_after" in fields:
            yield Entry(time_ms=time_ms, event=Resumed(step=fields["resumed_after"]))
        elif "left_after" in fields:
            yield Entry(time_ms=time_ms, event=Left(step=fields["left_after"]))
        else:
            yield Entry(time_ms=time_ms, event=Progress(**fields))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
