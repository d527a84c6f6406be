"""Placement groups of leases: made only where they fit, whole or not at all, and found again."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray._private.state import state as ray_state
from ray._raylet import PlacementGroupID
from ray.core.generated import gcs_pb2
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from mlaas.errors import PlacementError
from mlaas.scheduler.live.types import GROUP_PREFIX, group_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence

NODE_LABEL = "ray.io/node-id"
ROOM_S = 3.0
"""How long a group waits for room that the scheduler knows to be free: Ray's view of a removed group lags by up to a
tenth of a second. Made before the view has caught up, a group is put off by the control store for a whole second."""
READY_S = 5.0
"""How long a group may take to be whole. Nodes that are there answer within milliseconds."""
LAG_S = 0.25
"""For so long what a removed group held is not taken for the work of others, which it hides meanwhile."""
LIST_S = 10.0
"""Time between two readings of all groups. The control store keeps removed ones, so each reading costs more."""
_VIEW_S = 0.01
_SMALLEST = 1e-4
"""Ray counts in ten-thousandths."""

Amounts = dict[str, float]


@dataclass(frozen=True, slots=True)
class Made:
    """A group that is there."""

    handle: PlacementGroup
    bundles: tuple[tuple[str, Amounts], ...]
    """Node and amounts of each; the node is empty while Ray looks for one."""

    @property
    def is_placed(self) -> bool:
        """Whether each bundle has a node."""
        return all(node for node, _ in self.bundles)


class Groups:
    """The groups of all leases."""

    def __init__(self) -> None:
        self.made: dict[str, Made] = {}
        self._removed: list[tuple[float, Made]] = []
        self._claims: dict[str, Sequence[tuple[str, Amounts]]] = {}
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="groups")
        self._view: Mapping[str, Amounts] = {}
        self._viewed_s = float("-inf")
        self._viewing = asyncio.Lock()
        self._listed_s = float("-inf")

    async def make(self, lease_id: str, bundles: Sequence[tuple[str, Amounts]]) -> Made:
        """Make a group of these bundles, each on its node.

        Raises:
            PlacementError: there is no room, or the group does not become whole in time; nothing is left behind.
            RayError: the control store does not answer.
        """
        if lease_id in self.made:
            if self.made[lease_id].is_placed:
                return self.made[lease_id]
            await self.remove(lease_id)
        async with self._room(lease_id, bundles):
            made = Made(await self._run(_create, lease_id, bundles), tuple(bundles))
            if not await self._run(made.handle.wait, READY_S):
                await self._run(remove_placement_group, made.handle)
                text = f"its placement group was not whole after {READY_S:g} s"
                raise PlacementError("group_not_ready", text)
            self.made[lease_id] = made
        return made

    async def remove(self, lease_id: str) -> None:
        """Remove a group; without effect when there is none.

        Raises:
            RayError: the control store does not answer.
        """
        made = self.made.pop(lease_id, None)
        if made is not None:
            self._removed.append((time.monotonic(), made))
            await self._run(remove_placement_group, made.handle)

    async def remove_of(self, job: str, nodes: Collection[str]) -> None:
        """Remove the groups that a Ray job has made itself, those that lie on these nodes alone.

        Raises:
            RayError: the control store does not answer.
        """
        for handle in await self._run(_list_of, job, nodes):
            await self._run(remove_placement_group, handle)

    async def find(self) -> None:
        """Read which groups there are, if that was not done lately.

        Raises:
            RayError: the control store does not answer.
        """
        if time.monotonic() - self._listed_s < LIST_S:
            return
        before = set(self.made)
        found = await self._run(_list)
        self._listed_s = time.monotonic()
        for lease_id in before - found.keys():
            self.made.pop(lease_id, None)
        for lease_id, made in found.items():
            if lease_id not in self._claims and not any(gone.handle.id == made.handle.id for _, gone in self._removed):
                self.made[lease_id] = made

    def held(self) -> dict[str, Amounts]:
        """Return what groups hold of each node, those that were removed a moment ago among them."""
        horizon_s = time.monotonic() - LAG_S
        self._removed = [(at_s, made) for at_s, made in self._removed if at_s > horizon_s]
        held: dict[str, Amounts] = defaultdict(lambda: defaultdict(float))
        for made in (*self.made.values(), *(made for _, made in self._removed)):
            for node, amounts in made.bundles:
                for name, amount in amounts.items():
                    held[node][name] += amount
        return held

    async def available(self) -> Mapping[str, Amounts]:
        """Return what is free on each node by Ray's count, at most a moment old.

        Raises:
            RayError: the control store does not answer.
        """
        async with self._viewing:
            if time.monotonic() - self._viewed_s > _VIEW_S:
                self._view = await self._run(ray_state.available_resources_per_node)
                self._viewed_s = time.monotonic()
            return self._view

    @asynccontextmanager
    async def _room(self, lease_id: str, bundles: Sequence[tuple[str, Amounts]]) -> AsyncIterator[None]:
        """Wait until Ray's view has room for these bundles beside those that are being made, and claim it."""
        deadline_s = time.monotonic() + ROOM_S
        while not _fits(await self.available(), [*self._claims.values(), bundles], nodes={node for node, _ in bundles}):
            if time.monotonic() > deadline_s:
                raise PlacementError("no_room", "others have taken the room on the nodes that were chosen for it")
            await asyncio.sleep(_VIEW_S)
        self._claims[lease_id] = bundles
        try:
            yield
        finally:
            del self._claims[lease_id]
            self._viewed_s = float("-inf")

    async def _run(self, call: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)


def _fits(
    available: Mapping[str, Amounts], wanted: Sequence[Sequence[tuple[str, Amounts]]], *, nodes: set[str]
) -> bool:
    needed: dict[tuple[str, str], float] = defaultdict(float)
    for bundles in wanted:
        for node, amounts in bundles:
            for name, amount in amounts.items():
                needed[node, name] += amount
    return all(
        available.get(node, {}).get(name, 0.0) + _SMALLEST >= amount
        for (node, name), amount in needed.items()
        if node in nodes
    )


def _create(lease_id: str, bundles: Sequence[tuple[str, Amounts]]) -> PlacementGroup:
    """Ask for a group; one of this name that is there from an interrupted attempt goes first."""
    for attempt in (1, 2):
        try:
            return placement_group(
                [amounts for _, amounts in bundles],
                name=group_name(lease_id),
                lifetime="detached",
                bundle_label_selector=[{NODE_LABEL: node} for node, _ in bundles],
            )
        except RayError as error:
            if attempt == 2 or "already exists" not in str(error):
                raise
        if (old := _list().get(lease_id)) is not None:
            remove_placement_group(old.handle)
    raise AssertionError


def _list() -> dict[str, Made]:
    """Return the scheduler's groups that have not been removed, by lease."""
    found = {}
    for data in _rows():
        if data.name.startswith(GROUP_PREFIX):
            bundles = tuple((bundle.node_id.hex(), dict(bundle.unit_resources)) for bundle in data.bundles)
            found[data.name.removeprefix(GROUP_PREFIX)] = Made(_handle(data), bundles)
    return found


def _list_of(job: str, nodes: Collection[str]) -> list[PlacementGroup]:
    """Return the groups of a Ray job that lie on these nodes alone, without the scheduler's own."""
    return [
        _handle(data)
        for data in _rows()
        if data.creator_job_id.hex() == job
        and not data.name.startswith(GROUP_PREFIX)
        and {bundle.node_id.hex() for bundle in data.bundles} <= {*nodes}
    ]


def _rows() -> Iterator[Any]:
    """Yield what the control store knows of each group that has not been removed."""
    for row in ray_state._connect_and_get_accessor().get_placement_group_table():
        data = gcs_pb2.PlacementGroupTableData.FromString(row)
        if data.state != gcs_pb2.PlacementGroupTableData.REMOVED:
            yield data


def _handle(data: Any) -> PlacementGroup:
    return PlacementGroup(PlacementGroupID(data.placement_group_id))
