"""A cluster in memory: nodes, groups and commands, with faults on request. It holds nothing that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from mlaas.errors import PlacementError, PlatformError
from mlaas.scheduler.live.ports import CommandState, Demand, Group, Observation
from mlaas.scheduler.requests.spec import Command
from mlaas.scheduler.types import Gang, Kind, Node, Placement, Resources


class MemoryCluster:
    """`live.ports.ClusterPort`. What runs on it ends when a test says so, or when it is killed."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.outside: dict[str, Resources] = {}
        self.groups: dict[str, tuple[Gang, Placement]] = {}
        self.own_groups: list[tuple[str, Gang, Placement]] = []
        """Those that holders have made themselves, each with the Ray job of its maker."""
        self.commands: dict[str, CommandState] = {}
        self.started: list[tuple[str, Command, Kind]] = []
        self.asked: list[str] = []
        """Leases whose command was sent SIGTERM."""
        self.demand: tuple[Demand, ...] = ()
        self.is_down = False
        self.unanswered: set[str] = set()
        """Verbs that get no answer, while others do."""
        self.refusals = 0
        """Groups to refuse from now on."""
        self.on_call: Callable[[str], None] = lambda _verb: None
        """Called before each verb takes effect, and after it: it may raise, or change the cluster."""
        self._gone: set[str] = set()

    def lose_node(self, name: str) -> None:
        """A machine dies, with all that runs on it."""
        del self.nodes[name]
        for lease_id, (_, placement) in self.groups.items():
            if name in dict(placement.workers):
                self.commands.pop(lease_id, None)

    def end(self, lease_id: str, exit_code: int = 0, last_line: str = "") -> CommandState:
        """A command ends by itself."""
        self.commands[lease_id] = CommandState(lease_id, exit_code, last_line)
        return self.commands[lease_id]

    @property
    def running(self) -> dict[str, CommandState]:
        """Commands that run."""
        return {lease_id: state for lease_id, state in self.commands.items() if state.exit_code is None}

    def used(self) -> dict[str, dict[str, float]]:
        """Amounts that groups hold, by node."""
        return _held([*self.groups.values(), *self._made_by_holders()])

    async def observe(self) -> Observation:
        self._answer("observe")
        groups = tuple(
            Group(lease_id, all(node in self.nodes for node, _ in placement.workers))
            for lease_id, (_, placement) in self.groups.items()
        )
        outside = dict(self.outside)
        for node, held in _held(self._made_by_holders()).items():
            there = outside.get(node, Resources())
            outside[node] = Resources(there.gpus + held.get("GPU", 0.0), there.cpus + held.get("CPU", 0.0))
        return Observation(tuple(self.nodes.values()), tuple(outside.items()), groups, tuple(self.commands.values()))

    async def make_group(self, lease_id: str, gang: Gang, placement: Placement) -> None:
        self._answer("make_group")
        if lease_id in self.groups:
            return
        if self.refusals:
            self.refusals -= 1
            raise PlacementError("refused", "somebody else was faster")
        used = self.used()
        for node, workers in placement.workers:
            if node not in self.nodes:
                raise PlacementError("no_node", f"node {node} is gone")
            there, held = self.nodes[node].capacity.amounts(), used.get(node, {})
            outside = self.outside.get(node, Resources()).amounts()
            for name, amount in gang.worker.amounts().items():
                if workers * amount > there.get(name, 0.0) - held.get(name, 0.0) - outside.get(name, 0.0) + 1e-6:
                    raise PlacementError("no_room", f"{workers} workers do not fit on {node}")
        self.groups[lease_id] = (gang, placement)
        self.on_call("made_group")

    async def remove_group(self, lease_id: str) -> None:
        self._answer("remove_group")
        self.groups.pop(lease_id, None)
        self._gone.add(lease_id)
        self.on_call("removed_group")

    async def remove_own_groups(self, job: str, nodes: Collection[str]) -> None:
        self._answer("remove_own_groups")
        self.own_groups = [
            (maker, gang, placement)
            for maker, gang, placement in self.own_groups
            if maker != job or not {node for node, _ in placement.workers} <= {*nodes}
        ]

    async def start_command(
        self, lease_id: str, command: Command, gang: Gang, placement: Placement, *, kind: Kind
    ) -> None:
        self._answer("start_command")
        if lease_id in self.commands:
            return
        if lease_id in self._gone or lease_id not in self.groups:
            raise PlacementError("no_group", f"the group of {lease_id} is gone")
        if any(node not in self.nodes for node, _ in placement.workers):
            raise PlacementError("no_node", f"a node of {lease_id} is gone")
        self.commands[lease_id] = CommandState(lease_id, None)
        self.started.append((lease_id, command, kind))
        self.on_call("started_command")

    async def stop_command(self, lease_id: str, *, force: bool) -> None:
        self._answer("stop_command")
        state = self.commands.get(lease_id)
        if state is None or state.exit_code is not None:
            return
        if force:
            self.commands[lease_id] = replace(state, exit_code=-9)
        else:
            self.asked.append(lease_id)
        self.on_call("stopped_command")

    async def forget_command(self, lease_id: str) -> None:
        self._answer("forget_command")
        if lease_id in self.commands and self.commands[lease_id].exit_code is not None:
            del self.commands[lease_id]

    async def publish_demand(self, demand: Sequence[Demand]) -> None:
        self._answer("publish_demand")
        self.demand = tuple(demand)

    def _made_by_holders(self) -> list[tuple[Gang, Placement]]:
        return [(gang, placement) for _, gang, placement in self.own_groups]

    def _answer(self, verb: str) -> None:
        self.on_call(verb)
        if self.is_down or verb in self.unanswered:
            raise PlatformError("cluster_down", "the cluster does not answer")


def _held(gangs: Iterable[tuple[Gang, Placement]]) -> dict[str, dict[str, float]]:
    held: dict[str, dict[str, float]] = {}
    for gang, placement in gangs:
        for node, workers in placement.workers:
            for name, amount in gang.worker.amounts().items():
                there = held.setdefault(node, {})
                there[name] = there.get(name, 0.0) + workers * amount
    return held
