"""What the arbitration loop needs of the scheduler, the router and Ray Serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlaas.scheduler.arbitration.types import Load, Share
    from mlaas.scheduler.requests.spec import WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLease:
    """One replica's workload, as the scheduler has it."""

    workload_id: str
    deployment: str
    """Name of its deployment, which is the workload's name."""
    is_floor: bool
    """Whether it is one of the floor, and so never asked to yield."""
    lease_id: str | None = None
    """Of its present gang; None: it waits in the queue."""
    node: str | None = None
    """Where its gang is placed; None: it waits."""
    is_yielding: bool = False
    """Told to give its machine back."""


class Leases(Protocol):
    """The replicas' workloads in the scheduler. Every verb may be repeated."""

    async def list(self) -> Sequence[ReplicaLease]:
        """Return the workloads of kind `serve` that wait or hold a gang.

        Raises:
            PlatformError: the scheduler does not answer.
        """
        ...

    async def submit(self, spec: WorkloadSpec, *, submission_id: str) -> None:
        """Ask for a machine for one replica; the loop is its holder.

        Raises:
            AdmissionError: it can never be placed, with the reason.
            PlatformError: the scheduler does not answer.
        """
        ...

    async def keep(self, lease: ReplicaLease) -> None:
        """Say that the holder lives; the first time, take the gang's machine from the placement group for Ray Serve.

        Raises:
            PlatformError: the scheduler does not answer.
        """
        ...

    async def give_back(self, lease: ReplicaLease) -> None:
        """Free the machine, or leave the queue; the workload is over.

        Raises:
            PlatformError: the scheduler does not answer.
        """
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

    async def running(self) -> frozenset[str]:
        """Return the workload ids of the replicas whose processes are there, starting or stopping.

        Raises:
            PlatformError: Ray Serve does not answer.
        """
        ...


class LoadSource(Protocol):
    """The router's view of the deployments."""

    async def loads(self) -> Mapping[str, Load]:
        """Return the load of each deployment that the router knows; one that is missing is not known now."""
        ...
