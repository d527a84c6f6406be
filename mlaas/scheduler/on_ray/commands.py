"""Commands as the scheduler sees them: the launchers of all nodes, followed, and put together by lease."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mlaas.errors import MlaasError, PlacementError
from mlaas.scheduler.on_ray.launcher import Launcher
from mlaas.scheduler.on_ray.packages import package_path
from mlaas.scheduler.on_ray.parts import PartState, drop_ends, merge, read_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from mlaas.scheduler.live.ports import CommandState
    from mlaas.scheduler.on_ray.parts import PartOrder

NAMESPACE = "mlaas"
LAUNCHER_PREFIX = "launcher-"
START_S = 30.0
"""How long a launcher may take to start and to take an order: the first one on a node is a new Python process."""
RETRY_S = 0.5
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Followed:
    """A launcher, and what it has said last."""

    handle: Any
    version: int = -1
    states: tuple[PartState, ...] = ()
    following: asyncio.Task[None] | None = None

    def take(self, report: tuple[int, tuple[PartState, ...]]) -> bool:
        """Take in a report unless a later one has come before it."""
        if report[0] <= self.version:
            return False
        self.version, self.states = report
        return True


class Commands:
    """All commands of the cluster.

    Args:
        home: the instance's folder on this node.
        changed: called when a command has ended, or has been lost.
    """

    def __init__(self, home: Path, changed: Callable[[], None]) -> None:
        self._home = home
        self._changed = changed
        self._launchers: dict[str, _Followed] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self._starting: set[str] = set()
        self._ends = read_ends(home)

    async def adopt(self) -> None:
        """Find the launchers that an earlier scheduler has made, and hear what they run.

        Raises:
            RayError: the control store does not answer.
        """
        named = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        names = [it["name"] for it in named if it["namespace"] == NAMESPACE and it["name"].startswith(LAUNCHER_PREFIX)]
        await asyncio.gather(*(self._adopt(name) for name in names))

    async def states(self) -> list[CommandState]:
        """Return the commands whose parts are all known; what is left of others is killed."""
        running = [state for launcher in self._launchers.values() for state in launcher.states]
        whole, broken = merge([*self._ends, *running])
        for lease_id in broken.keys() - self._starting:
            logger.warning("parts of command %s are lost; the others are killed", lease_id)
            await self.forget(lease_id)
        return whole

    async def start(self, orders: Mapping[str, Sequence[PartOrder]]) -> None:
        """Start the parts of one command, by node.

        Raises:
            PlacementError: one of them cannot be started.
        """
        (lease_id,) = {order.lease_id for each in orders.values() for order in each}
        self._starting.add(lease_id)
        try:
            await asyncio.gather(*(self._start(node, each) for node, each in orders.items()))
        finally:
            self._starting.discard(lease_id)

    async def stop(self, lease_id: str, *, force: bool) -> None:
        """Signal what runs of a command."""
        await self._tell(lease_id, "stop", force=force)

    async def forget(self, lease_id: str) -> None:
        """Drop what is known of a command, and kill what still runs of it."""
        await self._tell(lease_id, "forget")
        for launcher in self._launchers.values():
            launcher.states = tuple(state for state in launcher.states if state.lease_id != lease_id)
        self._ends = [end for end in self._ends if end.lease_id != lease_id]
        await asyncio.to_thread(drop_ends, self._home, lease_id)

    def leave(self, kept: Collection[str]) -> None:
        """End the launchers of all other nodes that run nothing: a node with an actor on it is not idle to Ray."""
        for node, launcher in list(self._launchers.items()):
            if node not in kept and not launcher.states and not self._starting:
                if launcher.following is not None:
                    launcher.following.cancel()
                del self._launchers[node]
                ray.kill(launcher.handle)

    def close(self) -> None:
        """Stop following; launchers and commands go on."""
        for launcher in self._launchers.values():
            if launcher.following is not None:
                launcher.following.cancel()

    async def _adopt(self, name: str) -> None:
        node = name.removeprefix(LAUNCHER_PREFIX)
        if node not in self._launchers:
            with contextlib.suppress(ValueError, ActorDiedError):  # It died just now, and its commands with it.
                await self._follow(node, await asyncio.to_thread(ray.get_actor, name, namespace=NAMESPACE))

    async def _tell(self, lease_id: str, verb: str, **arguments: Any) -> None:
        for launcher in list(self._launchers.values()):
            if any(state.lease_id == lease_id for state in launcher.states):
                try:
                    await getattr(launcher.handle, verb).remote(lease_id, **arguments)
                except ActorUnavailableError:
                    raise
                except RayError:
                    continue  # Its commands died with it.

    async def _start(self, node: str, orders: Sequence[PartOrder]) -> None:
        try:
            async with asyncio.timeout(START_S):
                try:
                    await self._order(node, orders)
                except ActorDiedError:  # It has died since it was last heard, and its commands with it.
                    self._launchers.pop(node, None)
                    await self._order(node, orders)
        except (RayError, ValueError, TimeoutError) as error:
            if isinstance(cause := getattr(error, "cause", None), MlaasError):
                raise cause from error
            text = f"the launcher of node {node[:12]} does not start commands: {error!r}"
            raise PlacementError("launcher_unreachable", text) from error

    async def _order(self, node: str, orders: Sequence[PartOrder]) -> None:
        launcher = await self._launcher(node)
        await self._bring_package(launcher.handle, orders[0].package)
        launcher.take(await launcher.handle.start.remote(tuple(orders)))

    async def _bring_package(self, handle: Any, digest: str | None) -> None:
        if digest is None or await handle.has_package.remote(digest):
            return
        path = package_path(self._home, digest)
        if not path.exists():
            raise PlacementError("no_package", f"the working directory {digest[:12]} is not in {path.parent}")
        await handle.put_package.remote(digest, await asyncio.to_thread(path.read_bytes))

    async def _launcher(self, node: str) -> _Followed:
        async with self._making.setdefault(node, asyncio.Lock()):
            if node not in self._launchers:
                await self._follow(node, await asyncio.to_thread(_make_launcher, node))
            return self._launchers[node]

    async def _follow(self, node: str, handle: Any) -> None:
        launcher = _Followed(handle)
        launcher.take(await handle.watch.remote(-1))
        launcher.following = asyncio.create_task(self._listen(node, launcher))
        self._launchers[node] = launcher

    async def _listen(self, node: str, launcher: _Followed) -> None:
        """Take in what a launcher says until it is dead."""
        while True:
            try:
                if launcher.take(await launcher.handle.watch.remote(launcher.version)):
                    self._changed()
            except ActorUnavailableError:
                await asyncio.sleep(RETRY_S)
            except RayError as error:
                logger.warning("the launcher of node %s is gone, and with it its commands: %s", node, error)
                break
        if self._launchers.get(node) is launcher:
            del self._launchers[node]
        self._ends = await asyncio.to_thread(read_ends, self._home)
        self._changed()


def _make_launcher(node: str) -> Any:
    actor = ray.remote(Launcher).options(
        name=f"{LAUNCHER_PREFIX}{node}",
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_concurrency=1000,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )
    return actor.remote()
