"""What a look at the cluster says about the leases: pure, and careful with what happened while it was taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlaas.scheduler.live.lifecycle import CommandEnded, Lost
from mlaas.scheduler.types import Resources

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlaas.scheduler.live.entries import Live
    from mlaas.scheduler.live.lifecycle import Event
    from mlaas.scheduler.live.ports import Observation


@dataclass(frozen=True, slots=True)
class Sighting:
    """One look at the cluster."""

    observation: Observation
    begun_s: float
    """On the monotonic clock. What has started since may be missing, what has ended since may be there."""


def findings(sighting: Sighting, leased: Iterable[Live]) -> list[tuple[Live, Event]]:
    """Return what has happened to leases: commands that ended; nodes, groups and commands that are gone."""
    observation = sighting.observation
    nodes = {node.name for node in observation.nodes}
    groups = {group.lease_id: group.is_whole for group in observation.groups}
    commands = {command.lease_id: command for command in observation.commands}
    found: list[tuple[Live, Event]] = []
    for live in leased:
        lease = live.lease
        if lease is None or not live.state.holds_gang:
            continue
        command = commands.get(lease.id)
        if command is not None and command.exit_code is not None:
            found.append((live, CommandEnded(command.exit_code, command.last_line)))
            continue
        gone = [node for node, _ in lease.placement.workers if node not in nodes]
        if gone:
            found.append((live, Lost(f"node {', '.join(gone)} is gone")))
        elif lease.is_started and lease.begun_s < sighting.begun_s:
            reason = _missing(live, is_whole=groups.get(lease.id), has_command=command is not None)
            if reason:
                found.append((live, Lost(reason)))
    return found


def leaks(sighting: Sighting, *, leased: Mapping[str, Live], released: Mapping[str, float]) -> list[str]:
    """Return the lease ids of groups and commands that belong to nobody."""
    observation = sighting.observation
    seen = {group.lease_id for group in observation.groups} | {command.lease_id for command in observation.commands}
    return sorted(
        lease_id
        for lease_id in seen - leased.keys()
        if lease_id not in released or released[lease_id] < sighting.begun_s
    )


def outside_use(last: Observation | None, now: Observation, leased: Iterable[Live]) -> dict[str, Resources]:
    """Return what runs on each node without a lease.

    What one look shows and the other does not is a group of ours that was just made or removed, so the smaller amount
    counts. Holders that make their own groups use what is booked for them.
    """
    before = dict(now.outside if last is None else last.outside)
    own: dict[str, dict[str, float]] = {}
    for live in leased:
        if live.record.handed_over and live.lease is not None:
            for node, workers in live.lease.placement.workers:
                booked = own.setdefault(node, {})
                for name, amount in live.spec.gang.worker.amounts().items():
                    booked[name] = booked.get(name, 0.0) + workers * amount
    use = {}
    for node, used in now.outside:
        earlier, mine = before.get(node, Resources()).amounts(), own.get(node, {})
        left = {
            name: min(amount, earlier.get(name, 0.0)) - mine.get(name, 0.0) for name, amount in used.amounts().items()
        }
        amounts = {name: amount for name, amount in left.items() if amount > 0.0}
        if amounts:
            use[node] = _resources(amounts)
    return use


def _missing(live: Live, *, is_whole: bool | None, has_command: bool) -> str:
    if not live.record.handed_over and is_whole is None:
        return "its placement group is gone"
    if not live.record.handed_over and not is_whole:
        return "a node of its placement group is gone"
    if live.spec.command is not None and not has_command:
        return "the launcher of its command is gone"
    return ""


def _resources(amounts: Mapping[str, float]) -> Resources:
    custom = tuple(sorted((name, amount) for name, amount in amounts.items() if name not in ("GPU", "CPU", "memory")))
    return Resources(amounts.get("GPU", 0.0), amounts.get("CPU", 0.0), int(amounts.get("memory", 0.0)), custom)
