"""Parts of a command: one for each worker of a gang, or one for its driver."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlaas.scheduler.live.ports import CommandState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOrder:
    """One process to start on a node."""

    lease_id: str
    rank: int
    num_parts: int
    """Of the whole gang, so that whoever finds a part knows whether others are missing."""
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    """On top of the launcher's own."""
    package: str | None
    """Digest of the working directory."""

    @property
    def part(self) -> str:
        """Name of the part."""
        return part_name(self.lease_id, self.rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartState:
    """One process that was started on a node."""

    lease_id: str
    rank: int
    num_parts: int
    exit_code: int | None = None
    last_line: str = ""


def part_name(lease_id: str, rank: int) -> str:
    """Return the name of a part; lease ids hold no `@`."""
    return f"{lease_id}@{rank}"


def log_path(home: Path, lease_id: str, rank: int = 0) -> Path:
    """Return the file of what a part prints: the first worker, or the driver, has the attempt's own name."""
    workload_id, _, attempt = lease_id.rpartition(".")
    return home / "workloads" / workload_id / (f"{attempt}-{rank}.log" if rank else f"{attempt}.log")


def ends_dir(home: Path) -> Path:
    """Return the folder of ends that are not in the store yet: what has ended must not run again after a crash."""
    return home / "workloads" / ".ends"


def read_ends(home: Path) -> list[PartState]:
    """Return the ends of parts that nobody has dropped."""
    states = []
    for file in sorted(ends_dir(home).glob("*.json")):
        end = json.loads(file.read_text())
        lease_id, _, rank = end["part"].rpartition("@")
        states.append(
            PartState(
                lease_id=lease_id,
                rank=int(rank),
                num_parts=end["num_parts"],
                exit_code=end["exit_code"],
                last_line=end["last_line"],
            )
        )
    return states


def drop_ends(home: Path, lease_id: str) -> None:
    """Remove what is kept of a lease's ends."""
    for file in ends_dir(home).glob(f"{lease_id}@*.json"):
        file.unlink(missing_ok=True)


def merge(states: Iterable[PartState]) -> tuple[list[CommandState], dict[str, list[PartState]]]:
    """Put parts together to commands; return those that are whole, and the parts of those that are not, by lease.

    A command has failed as soon as one part has, and has succeeded once all have.
    """
    by_lease: dict[str, dict[int, PartState]] = {}
    for state in states:
        by_lease.setdefault(state.lease_id, {})[state.rank] = state
    whole, broken = [], {}
    for lease_id, parts in by_lease.items():
        failed = [part for part in parts.values() if part.exit_code]
        if not failed and len(parts) < next(iter(parts.values())).num_parts:
            broken[lease_id] = list(parts.values())
        elif failed:
            first = min(failed, key=lambda part: (part.exit_code == -9, part.rank))
            whole.append(CommandState(lease_id, first.exit_code, first.last_line))
        elif any(part.exit_code is None for part in parts.values()):
            whole.append(CommandState(lease_id, None))
        else:
            whole.append(CommandState(lease_id, 0, parts[0].last_line))
    return whole, broken
