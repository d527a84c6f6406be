"""A Ray cluster as `live.ports.ClusterPort`: nodes, placement groups, outside use and commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import ray
from ray._private.state import state as ray_state
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mlaas.errors import PlacementError, PlatformError
from mlaas.scheduler.live.ports import Group, Observation
from mlaas.scheduler.on_ray.commands import Commands
from mlaas.scheduler.on_ray.groups import NODE_LABEL, Groups
from mlaas.scheduler.on_ray.parts import PartOrder
from mlaas.scheduler.types import Kind, Node, Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from mlaas.scheduler.live.ports import CommandState, Demand
    from mlaas.scheduler.on_ray.groups import Amounts, Made
    from mlaas.scheduler.requests.spec import Command
    from mlaas.scheduler.types import Gang, Placement

DEVICES_S = 30.0
"""How long a bundle may take to say which GPUs it has: the time of a new worker process."""
RETRY_AFTER_S = 2.0
_NOT_SCHEDULED = ("object_store_memory", "node:", "accelerator_type:")
"""Resources that are Ray's own bookkeeping."""


class RayCluster:
    """The cluster that this process is connected to.

    Args:
        home: the instance's folder on this node.
        changed: called when a command has ended or was lost; `observe` says which.
    """

    def __init__(self, home: Path, *, changed: Callable[[], None]) -> None:
        self._groups = Groups()
        self._commands = Commands(home, changed)
        self._addresses: dict[str, str] = {}
        self._is_adopted = False

    async def observe(self) -> Observation:
        """Look at the cluster. The first look finds what an earlier scheduler has left.

        Raises:
            PlatformError: it does not answer.
        """
        async with _translated():
            if not self._is_adopted:
                await self._commands.adopt()
                self._is_adopted = True
            rows = [row for row in await asyncio.to_thread(ray.nodes) if row["Alive"]]
            draining = await asyncio.to_thread(ray_state.get_draining_nodes)
            await self._groups.find()
            available = await self._groups.available()
        self._addresses = {row["NodeID"]: row["NodeManagerAddress"] for row in rows}
        held = self._groups.held()
        groups = (Group(lease_id, self._is_whole(made)) for lease_id, made in self._groups.made.items())
        return Observation(
            nodes=tuple(_node(row, draining=draining) for row in rows),
            outside=tuple(_outside(row, available, held.get(row["NodeID"], {})) for row in rows),
            groups=tuple(groups),
            commands=await self.commands(),
        )

    async def make_group(self, lease_id: str, gang: Gang, placement: Placement) -> None:
        """Make a placement group on exactly these nodes, whole or not at all.

        Raises:
            PlacementError: it does not fit there any more; nothing is left behind.
            PlatformError: the cluster does not answer.
        """
        amounts = gang.worker.amounts()
        async with _translated():
            await self._groups.make(lease_id, [(node, amounts) for node in _by_rank(placement)])

    async def remove_group(self, lease_id: str) -> None:
        """Remove a group, and with it every task and actor in it.

        Raises:
            PlatformError: the cluster does not answer.
        """
        async with _translated():
            await self._groups.remove(lease_id)

    async def remove_own_groups(self, job: str, nodes: Collection[str]) -> None:
        """Remove the groups that a Ray job has made itself, those that lie on these nodes alone.

        Raises:
            PlatformError: the cluster does not answer.
        """
        async with _translated():
            await self._groups.remove_of(job, nodes)

    async def start_command(
        self, lease_id: str, command: Command, gang: Gang, placement: Placement, *, kind: Kind
    ) -> None:
        """Start a command: of a job or a batch in each worker, of any other kind once, on the first worker's node.

        Raises:
            PlacementError: it cannot be started there, or its group has been removed already.
            PlatformError: the cluster does not answer.
        """
        if (made := self._groups.made.get(lease_id)) is None:
            raise PlacementError("no_group", "its placement group is gone")
        nodes = _by_rank(placement)
        is_driver = kind not in (Kind.JOB, Kind.BATCH)
        async with _translated():
            devices = [""] * len(nodes) if is_driver or not gang.worker.gpus else await _devices(made, gang)
            orders: dict[str, list[PartOrder]] = {}
            for rank, node in enumerate(nodes[:1] if is_driver else nodes):
                environment = {
                    "MLAAS_LEASE_ID": lease_id,
                    "MLAAS_WORKER_RANK": str(rank),
                    "MLAAS_NUM_WORKERS": str(len(nodes)),
                    "MLAAS_MASTER_ADDR": self._addresses.get(nodes[0], ""),
                    "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
                    "CUDA_VISIBLE_DEVICES": devices[rank],
                    "OMP_NUM_THREADS": str(max(1, int(gang.worker.cpus))),
                }
                orders.setdefault(node, []).append(
                    PartOrder(
                        lease_id=lease_id,
                        rank=rank,
                        num_parts=1 if is_driver else len(nodes),
                        argv=command.argv,
                        environment=(*environment.items(), *command.environment),
                        package=command.working_dir,
                    )
                )
            await self._commands.start(orders)

    async def stop_command(self, lease_id: str, *, force: bool) -> None:
        """Ask a command and its children to end (SIGTERM), or end them (SIGKILL).

        Raises:
            PlatformError: the cluster does not answer.
        """
        async with _translated():
            await self._commands.stop(lease_id, force=force)

    async def forget_command(self, lease_id: str) -> None:
        """Drop the record of a command that has ended, once its end is in the store.

        Raises:
            PlatformError: the cluster does not answer.
        """
        async with _translated():
            await self._commands.forget(lease_id)

    async def publish_demand(self, demand: Sequence[Demand]) -> None:
        """Replace what the autoscaler is asked for. Nodes that are not named in it are left, so that they can go.

        Raises:
            PlatformError: the cluster does not answer.
        """
        wanted = [each for each in demand for _ in range(each.num_workers)]
        bundles = [each.gang.worker.amounts() for each in wanted]
        labels = [dict(each.gang.labels) for each in wanted]
        async with _translated():
            await asyncio.to_thread(request_resources, bundles=bundles, bundle_label_selectors=labels)
            self._commands.leave(
                {ray.get_runtime_context().get_node_id(), *(each.get(NODE_LABEL, "") for each in labels)}
            )

    async def commands(self) -> tuple[CommandState, ...]:
        """Return the commands alone, as the launchers have told of them last.

        Raises:
            PlatformError: what is left of a broken one cannot be killed.
        """
        async with _translated():
            return tuple(await self._commands.states())

    def close(self) -> None:
        """Let go of the cluster; what runs goes on."""
        self._commands.close()

    def _is_whole(self, made: Made) -> bool:
        return all(node in self._addresses for node, _ in made.bundles)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Say of a cluster that does not answer that it does not."""
    try:
        yield
    except (RayError, ConnectionError, TimeoutError) as error:
        text = f"the Ray cluster does not answer: {error!r}"
        raise PlatformError("cluster_unavailable", text, retry_after_s=RETRY_AFTER_S) from error


def _by_rank(placement: Placement) -> list[str]:
    """Return the node of each worker, in the order of ranks and of bundles."""
    return [node for node, count in placement.workers for _ in range(count)]


def _node(row: Mapping[str, Any], *, draining: Mapping[str, int]) -> Node:
    amounts = {name: amount for name, amount in row["Resources"].items() if not name.startswith(_NOT_SCHEDULED)}
    labels = tuple(sorted(row["Labels"].items()))
    host = row.get("NodeManagerHostname") or row["NodeManagerAddress"]
    return Node(row["NodeID"], _resources(amounts), labels, schedulable=row["NodeID"] not in draining, host=host)


def _outside(
    row: Mapping[str, Any], available: Mapping[str, Amounts], held: Mapping[str, float]
) -> tuple[str, Resources]:
    """Return what is used of a node without a group of ours. A node that is so new that Ray has no count is free."""
    total = row["Resources"]
    free = available.get(row["NodeID"], total)
    used = {
        name: max(0.0, round(amount - free.get(name, 0.0) - held.get(name, 0.0), 4))
        for name, amount in total.items()
        if not name.startswith(_NOT_SCHEDULED)
    }
    return row["NodeID"], _resources({name: amount for name, amount in used.items() if amount})


def _resources(amounts: Mapping[str, float]) -> Resources:
    custom = tuple(sorted((name, amount) for name, amount in amounts.items() if name not in ("GPU", "CPU", "memory")))
    return Resources(amounts.get("GPU", 0.0), amounts.get("CPU", 0.0), int(amounts.get("memory", 0.0)), custom)


async def _devices(made: Made, gang: Gang) -> list[str]:
    """Return the GPUs that Ray has given to each bundle. They are the bundle's own for as long as it lives."""
    asked = ray.remote(_visible_devices)
    bundles = range(len(made.bundles))
    strategies = [PlacementGroupSchedulingStrategy(made.handle, placement_group_bundle_index=i) for i in bundles]
    async with asyncio.timeout(DEVICES_S):
        options = ({"num_cpus": 0, "num_gpus": gang.worker.gpus, "scheduling_strategy": each} for each in strategies)
        return list(await asyncio.gather(*(asked.options(**each).remote() for each in options)))


def _visible_devices() -> str:
    return ",".join(str(device) for device in ray.get_gpu_ids())
