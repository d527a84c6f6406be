"""Runs an engine so that nothing of it outlives the replica: `python -m mlaas.serving.guard PARENT_PID COMMAND...`.

An engine is several processes, and the kernel tells only a direct child that its parent died. The guard is that child:
it leads the process group of the engine, and kills the group when the replica dies, however it dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1
"""Source: prctl(2), `PR_SET_PDEATHSIG`."""


def main(parent_pid: int, command: list[str]) -> None:
    """Run the command, pass `SIGTERM` on to it, and kill the whole group when the command or the parent has ended."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, _kill_group)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
    if os.getppid() == parent_pid:
        engine = subprocess.Popen(command)
        signal.signal(signal.SIGTERM, lambda *_: engine.terminate())
        engine.wait()
    _kill_group()


def _kill_group(_signal: int = 0, _frame: FrameType | None = None) -> None:
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
