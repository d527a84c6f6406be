"""What the arbitration loop needs of the scheduler, the router and Ray Serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlaas.scheduler.arbitration.types import Load, ReplicaState, Share


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLease:
    """One replica's workload, as the scheduler has it."""

    workload_id: str
    deployment: str
    version: int
    is_floor: bool
    """Whether it is one of the floor, and so never asked to yield."""
    sequence: int
    """Order of submission."""
    node: str | None = None
    """Ray's id of the node where it may run; None: it waits in the queue."""
    is_yielding: bool = False
    """Told to give its machine back."""


class Leases(Protocol):
    """The replicas' workloads in the scheduler. Every verb may be repeated."""

    async def list(self) -> Sequence[ReplicaLease]:
        """Return the replicas that wait for a machine or hold one, and keep holding them.

        Raises:
            PlatformError: the scheduler does not answer.
        """
        ...

    async def submit(self, share: Share, *, is_floor: bool) -> None:
        """Ask for a machine for one replica.

        Raises:
            AdmissionError: it can never be placed, with the reason.
            PlatformError: the scheduler does not answer.
        """
        ...

    async def obstacle(self, lease: ReplicaLease) -> str | None:
        """Return what a replica that waits will go on waiting for unless somebody does something; None: its turn.

        Raises:
            PlatformError: the scheduler does not answer.
        """
        ...

    async def give_back(self, lease: ReplicaLease) -> None:
        """Free the machine, or leave the queue. One that was told to yield waits for its next turn.

        Raises:
            PlatformError: the scheduler does not answer.
        """
        ...

    async def close(self) -> None:
        """Stop holding; who takes over in time finds everything as it is."""
        ...


class Replicas(Protocol):
    """What Ray Serve runs for the deployments that share."""

    async def shares(self) -> Mapping[str, Share]:
        """Return the deployments that share, by name.

        Raises:
            PlatformError: the store does not answer.
        """
        ...

    async def put(self, leases: Sequence[ReplicaLease]) -> None:
        """Make Ray Serve run one replica for each of these leases, on its node, and no other of these deployments.

        Raises:
            PlatformError: Ray Serve does not answer.
        """
        ...

    async def present(self) -> Mapping[str, ReplicaState]:
        """Return the replicas that Ray Serve has, by workload id.

        Raises:
            PlatformError: Ray Serve does not answer.
        """
        ...

    async def tell(self, obstacles: Mapping[str, str]) -> None:
        """Let whoever deploys know why deployments get no machine for their floor; nothing hinders those not named.

        Raises:
            PlatformError: the store does not answer.
        """
        ...


class LoadSource(Protocol):
    """The router's view of the deployments."""

    async def loads(self) -> Mapping[str, Load]:
        """Return the load of each deployment that the router knows; one that is missing is not known now."""
        ...

    async def close(self) -> None:
        """Let go of the router."""
        ...
