"""Ray Serve and the router as the arbitration sees them, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlaas.errors import AdmissionError
from mlaas.scheduler.arbitration.ports import ReplicaLease
from mlaas.scheduler.arbitration.types import Load, ReplicaState, Share


@dataclass
class MemoryReplicas:
    """Replicas that are up as soon as they are put."""

    wanted: dict[str, Share] = field(default_factory=dict)
    running: dict[str, ReplicaState] = field(default_factory=dict)
    nodes: dict[str, str | None] = field(default_factory=dict)
    num_puts: int = 0
    obstacles: dict[str, str] = field(default_factory=dict)

    async def shares(self) -> Mapping[str, Share]:
        """Return the deployments that share, by name."""
        return dict(self.wanted)

    async def put(self, leases: Sequence[ReplicaLease]) -> None:
        """Run exactly these."""
        self.num_puts += 1
        self.nodes = {lease.workload_id: lease.node for lease in leases}
        self.running = dict.fromkeys(self.nodes, ReplicaState.READY)

    async def present(self) -> Mapping[str, ReplicaState]:
        """Return what runs."""
        return dict(self.running)

    async def tell(self, obstacles: Mapping[str, str]) -> None:
        """Keep them."""
        self.obstacles = dict(obstacles)


@dataclass
class MemoryRouter:
    """A router that reports what it is told to."""

    seen: dict[str, Load] = field(default_factory=dict)

    async def loads(self) -> Mapping[str, Load]:
        """Return the load of each deployment."""
        return dict(self.seen)

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class MemoryLeases:
    """Machines for the asking, as many as there are."""

    num_machines: int = 8
    leases: dict[str, ReplicaLease] = field(default_factory=dict)
    num_submitted: int = 0
    refusal: str = ""
    obstacles: dict[str, str] = field(default_factory=dict)
    num_asked: int = 0

    async def list(self) -> Sequence[ReplicaLease]:
        """Return the replicas that wait or hold a machine."""
        return list(self.leases.values())

    async def submit(self, share: Share, *, is_floor: bool) -> None:
        """Give a machine if there is one."""
        if self.refusal:
            raise AdmissionError("beyond_quota", self.refusal)
        self.num_submitted += 1
        workload_id = f"w{self.num_submitted}"
        used = sum(lease.node is not None for lease in self.leases.values())
        self.leases[workload_id] = ReplicaLease(
            workload_id=workload_id, deployment=share.name, version=share.version, is_floor=is_floor,
            sequence=self.num_submitted, node=f"n{used}" if used < self.num_machines else None,
        )  # fmt: skip

    async def obstacle(self, lease: ReplicaLease) -> str | None:
        """Return what a test has put in the way."""
        self.num_asked += 1
        return self.obstacles.get(lease.workload_id)

    async def give_back(self, lease: ReplicaLease) -> None:
        """Take the machine back."""
        self.leases.pop(lease.workload_id)

    async def close(self) -> None:
        """Nothing is held."""
