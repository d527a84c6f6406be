"""Which endpoints are up: each one holds a lease that its replica's heartbeats renew.

Pure: a state and `now_s` go in, the next state comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlaas.serving.types import Endpoint

LEASE_S = 6.0
"""How long an endpoint stays listed after a heartbeat: a busy replica misses several and is not taken for dead."""


@dataclass(frozen=True)
class Lease:
    """An endpoint, and when it is no longer believed."""

    endpoint: Endpoint
    expires_s: float


@dataclass(frozen=True)
class Leases:
    """The leases in force, one for each replica."""

    by_replica: Mapping[str, Lease] = field(default_factory=dict)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints that are up, in a stable order."""
        live = (lease.endpoint for lease in self.by_replica.values())
        return tuple(sorted(live, key=lambda endpoint: (endpoint.model, endpoint.replica_id)))

    @property
    def next_expiry_s(self) -> float | None:
        """When the next lease runs out; None when there is none."""
        return min((lease.expires_s for lease in self.by_replica.values()), default=None)


def renew(leases: Leases, endpoint: Endpoint, *, now_s: float) -> Leases:
    """Give the endpoint's replica a full lease, in place of the one it had."""
    return Leases({**leases.by_replica, endpoint.replica_id: Lease(endpoint, now_s + LEASE_S)})


def withdraw(leases: Leases, replica_id: str) -> Leases:
    """End the replica's lease now; a replica without one changes nothing."""
    return Leases({held: lease for held, lease in leases.by_replica.items() if held != replica_id})


def expire(leases: Leases, *, now_s: float) -> Leases:
    """End the leases that have run out."""
    return Leases({held: lease for held, lease in leases.by_replica.items() if lease.expires_s > now_s})
