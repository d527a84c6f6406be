"""What to book, run and give back so that each deployment gets the replicas it is wished. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlaas.scheduler.arbitration.types import ReplicaState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from mlaas.scheduler.arbitration.ports import ReplicaLease
    from mlaas.scheduler.arbitration.types import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class SharePlan:
    """What is to be done now, in this order."""

    submit: tuple[tuple[Share, bool], ...]
    """Machines to ask for, and whether each one is for a replica of the floor."""
    run: tuple[ReplicaLease, ...]
    """All replicas that Ray Serve should have."""
    give_back: tuple[ReplicaLease, ...]
    """Leases that are not wanted, or told to yield, and whose replicas are gone."""


def plan_shares(
    shares: Mapping[str, Share],
    wishes: Mapping[str, int],
    leases: Sequence[ReplicaLease],
    present: Mapping[str, ReplicaState],
    *,
    broken: Collection[str] = (),
) -> SharePlan:
    """Return what to do.

    A machine is given back only after its replica has gone, so a booking never lies about what runs. Replicas of an
    older version stay until the floor of the new one answers. One that is broken is stopped, and another asked for.

    Args:
        shares: The deployments that share.
        wishes: Replicas that each one should have.
        leases: What is booked or waits.
        present: Replicas that Ray Serve has.
        broken: Replicas that are to be replaced.
    """
    submit: list[tuple[Share, bool]] = []
    kept: set[str] = set()
    for name, share in shares.items():
        own = [lease for lease in leases if lease.deployment == name]
        current = [each for each in own if each.version == share.version and each.workload_id not in broken]
        stay = _preferred(current)[: wishes[name]]
        kept |= {lease.workload_id for lease in stay}
        num_floor = sum(lease.is_floor for lease in stay)
        for _ in range(wishes[name] - len(stay)):
            submit.append((share, num_floor < share.floor))
            num_floor += 1
        if sum(present.get(lease.workload_id) is ReplicaState.READY for lease in stay) < share.floor:
            kept |= {lease.workload_id for lease in own if lease.version != share.version}
    run = tuple(
        lease for lease in leases if lease.workload_id in kept and lease.node is not None and not lease.is_yielding
    )
    running = {lease.workload_id for lease in run}
    give_back = tuple(
        lease
        for lease in leases
        if lease.workload_id not in running
        and lease.workload_id not in present
        and (lease.workload_id not in kept or lease.is_yielding)
    )
    return SharePlan(submit=tuple(submit), run=run, give_back=give_back)


def _preferred(leases: Sequence[ReplicaLease]) -> list[ReplicaLease]:
    """Return leases, the first to be kept first: the floor, then what has a machine, then the oldest."""
    return sorted(leases, key=lambda each: (not each.is_floor, each.is_yielding, each.node is None, each.sequence))
