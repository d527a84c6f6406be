"""What the live scheduler needs of a cluster. `mlaas.scheduler.on_ray` is the real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mlaas.scheduler.requests.spec import Command
    from mlaas.scheduler.types import Gang, Kind, Node, Placement, Resources


@dataclass(frozen=True, slots=True)
class Group:
    """A placement group that this scheduler, or an earlier one, has made."""

    lease_id: str
    """`<workload id>.<attempt>`: no two attempts share a group, so what comes late from an old one hits nothing."""
    is_whole: bool
    """Whether every bundle lies on a live node."""


@dataclass(frozen=True, slots=True)
class CommandState:
    """A command that was started for a lease, as its launcher reports it."""

    lease_id: str
    exit_code: int | None
    """None: it runs. Negative: the number of the signal that ended it."""
    last_line: str = ""
    """End of its log, once it has ended."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The cluster at one moment."""

    nodes: tuple[Node, ...]
    """Live ones, named by Ray's node id; a node that drains is not schedulable."""
    outside: tuple[tuple[str, Resources], ...]
    """Per node, what runs there without this scheduler's leases."""
    groups: tuple[Group, ...]
    commands: tuple[CommandState, ...]


@dataclass(frozen=True, slots=True)
class Demand:
    """Gangs that are admitted and fit on no node that is there: what an autoscaler should bring."""

    gang: Gang
    num_workers: int


class ClusterPort(Protocol):
    """A cluster that runs gangs. Every verb may be repeated; what is done already is done again without effect."""

    async def observe(self) -> Observation:
        """Look at the cluster.

        Raises:
            PlatformError: it does not answer.
        """
        ...

    async def make_group(self, lease_id: str, gang: Gang, placement: Placement) -> None:
        """Make a placement group on exactly these nodes, whole or not at all.

        Raises:
            PlacementError: it does not fit there any more; nothing is left behind.
            PlatformError: the cluster does not answer.
        """
        ...

    async def remove_group(self, lease_id: str) -> None:
        """Remove a group, and with it every task and actor in it.

        Raises:
            PlatformError: the cluster does not answer.
        """
        ...

    async def remove_own_groups(self, job: str, nodes: Collection[str]) -> None:
        """Remove the groups that a Ray job has made itself, those that lie on these nodes alone.

        Raises:
            PlatformError: the cluster does not answer.
        """
        ...

    async def start_command(
        self, lease_id: str, command: Command, gang: Gang, placement: Placement, *, kind: Kind
    ) -> None:
        """Start a command in its group: of a job or a batch in each worker, of any other kind once, as its driver.

        Raises:
            PlacementError: it cannot be started there, or its group has been removed already.
            PlatformError: the cluster does not answer.
        """
        ...

    async def stop_command(self, lease_id: str, *, force: bool) -> None:
        """Ask a command and its children to end (SIGTERM), or end them (SIGKILL).

        Raises:
            PlatformError: the cluster does not answer.
        """
        ...

    async def forget_command(self, lease_id: str) -> None:
        """Drop the record of a command that has ended, once its end is in the store."""
        ...

    async def publish_demand(self, demand: Sequence[Demand]) -> None:
        """Replace what the autoscaler is asked for.

        Raises:
            PlatformError: the cluster does not answer.
        """
        ...
