"""The processes of one instance: found by a mark in their environment, ended by process id.

Children inherit the environment, so the mark also finds what outlives its parent (HAProxy outlives Ray) and tells this
instance's Ray from any other on the machine.
"""

from __future__ import annotations

import hashlib
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import psutil

from mlaas.errors import Conflict

INSTANCE_MARK = "MLAAS_INSTANCE"
PART_MARK = "MLAAS_PART"
RELEASE_S = 5.0
"""How long the kernel may take to close the sockets of a process that was killed."""
_LOOK_S = 0.05
_UNKNOWN_OWNER = "a process of another user"


def instance_id(home: Path) -> str:
    """Return the short, stable name of the instance that lives in `home`."""
    return hashlib.sha256(str(home).encode()).hexdigest()[:8]


def runtime_dir(home: Path) -> Path:
    """Return the instance's private folder for sockets (their paths hold at most 108 bytes), making it if absent.

    Raises:
        Conflict: another user of the machine has taken the folder.
    """
    path = Path("/tmp") / f"mlaas-{instance_id(home)}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != psutil.Process().uids().effective:
        raise Conflict(
            "runtime_dir_taken", f"{path} belongs to another user; remove it, or set MLAAS_HOME to another folder"
        )
    return path


def spawn(
    command: Sequence[str], *, home: Path, part: str, env: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a marked process that outlives this one, in a session of its own, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    marked = {**env, INSTANCE_MARK: instance_id(home), PART_MARK: part, "SPT_NOENV": "1"}
    with log.open("ab") as out:
        return subprocess.Popen(
            command, env=marked, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def owned(home: Path, *, part: str | None = None) -> list[psutil.Process]:
    """Return the live processes of the instance, or of one part of it, without this process and its ancestors."""
    this = psutil.Process()
    spared = {this.pid, *(parent.pid for parent in this.parents())}
    wanted = {INSTANCE_MARK: instance_id(home)} | ({PART_MARK: part} if part else {})
    return [p for p in psutil.process_iter() if p.pid not in spared and _carries(p, wanted)]


def owned_names(home: Path, *, part: str) -> set[str]:
    """Return the names of the live processes of one part of the instance."""
    names = set()
    for process in owned(home, part=part):
        with suppress(psutil.NoSuchProcess):
            names.add(process.name())
    return names


def end(processes: Sequence[psutil.Process], *, grace_s: float) -> None:
    """Ask processes to end, and kill those that have not after `grace_s` seconds."""
    for signal in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                signal(process)
        _, processes = psutil.wait_procs(processes, timeout=grace_s)


def port_owner(port: int) -> str | None:
    """Name the process that listens on `port` as "name (pid 1)", or return None when the port is free."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            if connection.pid is None:
                return _UNKNOWN_OWNER
            return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None


def require_free_port(port: int, *, variable: str) -> None:
    """Check that a port can be listened on. A process that was just killed has a moment to let go of it.

    Raises:
        Conflict: the port is taken; names the process and the variable that chooses another port.
    """
    deadline_s = time.monotonic() + RELEASE_S
    while owner := port_owner(port):
        if owner != _UNKNOWN_OWNER or time.monotonic() > deadline_s:
            raise Conflict("port_taken", f"port {port} is taken by {owner}: stop it, or set {variable} to a free port")
        time.sleep(_LOOK_S)


def free_port() -> int:
    """Return a TCP port that nothing listens on at the moment."""
    with closing(socket.socket()) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _carries(process: psutil.Process, wanted: Mapping[str, str]) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        environment = process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return False
    return all(environment.get(name) == value for name, value in wanted.items())
