"""Starts the commands of one launcher and lets nothing of them outlive it: `python starter.py RAYLET_PID`.

A process of its own, with one thread and nothing imported that is heavy: a fork of it costs a fraction of a
millisecond. Orders come as JSON lines on standard input, news goes as JSON lines to standard output. When its input
ends, the launcher is dead: it kills all that it has started. When the raylet dies it does so too, before a command can
fail for want of it, so that a lost node never looks like a command's own failure.

Each command leads a session of its own. What one leaves behind is killed with it, daemons included: they become
children of this process, which knows them by the lease in their environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
"""Source: prctl(2)."""
_TAIL_BYTES = 4096
_LAST_LINE_CHARACTERS = 400
PART_VARIABLE = "MLAAS_COMMAND_PART"
"""Marks every process of one command, to find those that have left its session."""

_libc = ctypes.CDLL(None, use_errno=True)


class Starter:
    """The commands that run, by process."""

    def __init__(self) -> None:
        self._orders: dict[int, dict[str, Any]] = {}
        self._pids: dict[str, int] = {}
        self._input = b""

    def serve(self, raylet_pid: int) -> None:
        """Carry out orders until there is nobody to give them."""
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        wake_in, wake_out = os.pipe()
        os.set_blocking(wake_in, False)
        os.set_blocking(wake_out, False)
        signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            raylet = os.pidfd_open(raylet_pid)
            while True:
                ready, _, _ = select.select([0, wake_in, raylet], [], [])
                if raylet in ready:
                    return
                if wake_in in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_in, 4096)
                    self._reap()
                if 0 in ready and not self._read():
                    return
        finally:
            self._kill_all()

    def _read(self) -> bool:
        piece = os.read(0, 1 << 20)
        *lines, self._input = (self._input + piece).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return bool(piece)

    def _obey(self, order: dict[str, Any]) -> None:
        pid = self._pids.get(order["part"])
        if "argv" in order:
            self._start(order)
        elif pid is not None:
            with contextlib.suppress(OSError):
                os.killpg(pid, order["signal"])

    def _start(self, order: dict[str, Any]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(order, parent=parent)
        self._orders[pid] = order
        self._pids[order["part"]] = pid
        _tell({"part": order["part"], "pid": pid})

    def _reap(self) -> None:
        """Take in what has ended. A process is killed with its group before it is taken, while its number is its own.

        Source: wait(2), `WNOWAIT`.
        """
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            order = self._orders.pop(ended.si_pid, None)
            if order is None:
                os.waitpid(ended.si_pid, 0)
                continue
            with contextlib.suppress(OSError):
                os.killpg(ended.si_pid, signal.SIGKILL)
            _, status = os.waitpid(ended.si_pid, 0)
            self._kill_strays(order["part"])
            del self._pids[order["part"]]
            _record(order, os.waitstatus_to_exitcode(status))

    def _kill_strays(self, part: str) -> None:
        mark = f"{PART_VARIABLE}={part}".encode()
        for pid in _children():
            with contextlib.suppress(OSError):
                if pid not in self._orders and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    os.kill(pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        """Kill every process below this one; those whose parents die become its children in turn."""
        signal.set_wakeup_fd(-1)
        for pid in self._orders:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        while children := _children():
            for pid in children:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.wait()


def _become(order: dict[str, Any], *, parent: int) -> None:
    """Turn this process into the command."""
    try:
        os.setsid()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(order["folder"])
        os.execvpe(order["argv"][0], order["argv"], order["environment"])
    except OSError as error:
        os.write(2, f"{order['argv'][0]} cannot be started in {order['folder']}: {error.strerror}\n".encode())
        os._exit(127)


def _record(order: dict[str, Any], exit_code: int) -> None:
    """Write the end of a command where it outlives this process, and tell of it."""
    end = {"part": order["part"], "exit_code": exit_code, "last_line": _last_line(Path(order["log"]))}
    file = Path(order["end"])
    partial = file.with_suffix(".partial")
    with contextlib.suppress(OSError):  # On a full disk the launcher alone knows.
        partial.write_text(json.dumps({**end, "num_parts": order["num_parts"]}))
        partial.rename(file)
    _tell(end)


def _last_line(log: Path) -> str:
    lines: list[str] = []
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:_LAST_LINE_CHARACTERS] if lines else ""


def _children() -> list[int]:
    pid = os.getpid()
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _tell(news: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(news).encode() + b"\n")


if __name__ == "__main__":
    if os.fork() == 0:  # The launcher's children die with it at once, before this could end what it has started.
        os.setsid()
        Starter().serve(int(sys.argv[1]))
