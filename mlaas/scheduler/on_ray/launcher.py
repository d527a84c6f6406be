"""The launcher of a node: starts commands, watches them, ends them, and keeps their logs and working directories."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas.errors import MlaasError, PlacementError
from mlaas.scheduler.on_ray.packages import package_path, unpack
from mlaas.scheduler.on_ray.parts import PartOrder, PartState, drop_ends, ends_dir, log_path
from mlaas.scheduler.on_ray.starter import PART_VARIABLE
from mlaas.settings import inherited_environment, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

WATCH_S = 10.0
"""Longest time that a watch waits for news."""
_NOT_INHERITED = ("MLAAS_INSTANCE", "MLAAS_PART", "RAY_JOB_ID", "RAY_RAYLET_PID", "CUDA_VISIBLE_DEVICES")
"""A command is ended through its launcher, so neither it nor its starter must carry the mark by which an instance's
processes are ended: what that signal makes of a command would count as its own end, and a starter that is killed before
its commands cannot kill what they have started. The others are the launcher's alone."""


class Launcher:
    """The commands of one node. `commands.Launchers` runs it as an actor, one for each node."""

    def __init__(self) -> None:
        self._home = load_settings().home
        ends_dir(self._home).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._states: dict[str, PartState] = {}
        self._pids: dict[str, int] = {}
        self._discarded: set[str] = set()
        self._version = 0
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        starter = str(Path(__file__).with_name("starter.py"))
        # `-I -S`: without site-packages its start takes 10 ms.
        self._starter = subprocess.Popen(
            [sys.executable, "-I", "-S", starter, str(os.getppid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_inherited(),
        )
        self._starter.wait()  # It goes on as a process of its own.

    async def has_package(self, digest: str) -> bool:
        """Return whether the archive of a working directory is on this node."""
        return package_path(self._home, digest).exists()

    async def put_package(self, digest: str, archive: bytes) -> None:
        """Bring the archive of a working directory to this node, which does not share the head's folder."""
        path = package_path(self._home, digest)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(archive)
        partial.rename(path)

    async def start(self, orders: Sequence[PartOrder]) -> tuple[int, tuple[PartState, ...]]:
        """Start what has not been started yet, and return the states of all parts as `watch` does.

        A part that has ended is not started again; one that is being killed is, once it has ended.

        Raises:
            PlacementError: the starter of this node is dead, or a working directory cannot be unpacked.
        """
        if self._following is None:
            self._following = asyncio.create_task(self._follow())
        for order in orders:
            while order.part in self._discarded:
                await self._changed.wait()
            if order.part not in self._states:
                await self._start(order)
        return self._report()

    async def stop(self, lease_id: str, *, force: bool) -> None:
        """Signal the process groups of a lease."""
        for part, state in self._states.items():
            if state.lease_id == lease_id and state.exit_code is None:
                self._send(part=part, signal=int(signal.SIGKILL if force else signal.SIGTERM))

    async def forget(self, lease_id: str) -> None:
        """Kill what still runs of a lease, and drop what is known of it once it has ended."""
        for part, state in list(self._states.items()):
            if state.lease_id == lease_id:
                if state.exit_code is None:
                    self._discarded.add(part)
                    self._notify()
                    self._send(part=part, signal=int(signal.SIGKILL))
                else:
                    del self._states[part]
                    self._notify()
        drop_ends(self._home, lease_id)

    async def watch(self, after: int, wait_s: float = WATCH_S) -> tuple[int, tuple[PartState, ...]]:
        """Return the states of all parts as soon as their version is not `after`, or after a while."""
        if self._version == after:
            changed = self._changed
            try:
                async with asyncio.timeout(wait_s):
                    await changed.wait()
            except TimeoutError:
                pass
        return self._report()

    def _report(self) -> tuple[int, tuple[PartState, ...]]:
        return self._version, tuple(state for part, state in self._states.items() if part not in self._discarded)

    async def _start(self, order: PartOrder) -> None:
        self._set(PartState(lease_id=order.lease_id, rank=order.rank, num_parts=order.num_parts))
        folder = self._home
        try:
            if order.package is not None:
                folder = await asyncio.to_thread(unpack, self._home, order.package)
            log = log_path(self._home, order.lease_id, order.rank)
            log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._send(
                part=order.part,
                argv=order.argv,
                environment=self._environment(order, folder=folder),
                folder=str(folder),
                log=str(log),
                end=str(ends_dir(self._home) / f"{order.part}.json"),
                num_parts=order.num_parts,
            )
        except (MlaasError, OSError) as error:
            del self._states[order.part]
            if isinstance(error, OSError):
                raise PlacementError("log_refused", f"{error.filename} cannot be made: {error.strerror}") from error
            raise

    def _environment(self, order: PartOrder, *, folder: Path) -> dict[str, str]:
        inherited = _inherited()
        if order.package is not None:
            # A command that connects to Ray gives its tasks and actors, on all nodes, the same files.
            runtime_env = {"working_dir": str(folder)}
            inherited["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": runtime_env})
            inherited["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), inherited.get("PYTHONPATH"))))
        return {"PYTHONUNBUFFERED": "1", **inherited, **dict(order.environment), PART_VARIABLE: order.part}

    def close(self) -> None:
        """End all commands at once, and let go of the starter."""
        if self._following is not None:
            self._following.cancel()
        for pipe in (self._starter.stdin, self._starter.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, **order: Any) -> None:
        assert self._starter.stdin is not None
        try:
            self._starter.stdin.write(json.dumps(order).encode() + b"\n")
            self._starter.stdin.flush()
        except BrokenPipeError as error:
            raise PlacementError("starter_dead", "the process that starts commands on this node is dead") from error

    async def _follow(self) -> None:
        """Take in the starter's news. Without a starter there is no launcher: the scheduler makes another."""
        reader = asyncio.StreamReader(limit=1 << 20)
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._starter.stdout)
        while line := await reader.readline():
            self._take_in(json.loads(line))
        for pid in self._pids.values():
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        os._exit(1)

    def _take_in(self, news: dict[str, Any]) -> None:
        part = news["part"]
        if "pid" in news:
            self._pids[part] = news["pid"]
            return
        self._pids.pop(part, None)
        state = self._states[part]
        if part in self._discarded:
            self._discarded.remove(part)
            del self._states[part]
            drop_ends(self._home, state.lease_id)
            self._notify()
            return
        self._set(replace(state, exit_code=news["exit_code"], last_line=news["last_line"]))

    def _set(self, state: PartState) -> None:
        self._states[f"{state.lease_id}@{state.rank}"] = state
        self._notify()

    def _notify(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()


def _inherited() -> dict[str, str]:
    return {name: value for name, value in inherited_environment().items() if name not in _NOT_INHERITED}
