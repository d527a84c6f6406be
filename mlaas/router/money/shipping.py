"""Keeps the journal on its way to the store, for as long as a gateway replica lives.

A busy replica's rows take a fifth of a core. In a thread they would keep the interpreter from the event loop, so a
replica has a process beside it that does nothing else; it ends with the replica, whatever ends that one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from mlaas.errors import PlatformError
from mlaas.router.money.journal_shipping import JournalOf, Shipper
from mlaas.settings import inherited_environment, load_settings
from mlaas.store.engine import open_store
from mlaas.store.usage import UsageRepository

_PERIOD_S = 1.0
_FINISH_S = 10.0
_NICENESS = 5

logger = logging.getLogger(__name__)


class Shipping(Protocol):
    """Carries a journal to the store."""

    async def run(self) -> None:
        """Carry until cancelled."""

    async def finish(self) -> None:
        """Carry what is left, after `run` has ended and the journal is closed."""


class ShippingTask:
    """Carries in a thread of this process, which suits one that is not busy.

    Args:
        shipper: of this process's journal.
    """

    def __init__(self, shipper: Shipper) -> None:
        self._round = _Round(shipper)

    async def run(self) -> None:
        """Carry until cancelled."""
        while True:
            await self.finish()
            await asyncio.sleep(_PERIOD_S)

    async def finish(self) -> None:
        """Carry what there is."""
        await asyncio.to_thread(self._round)


class ShippingProcess:
    """Carries in a process of its own, which opens the store that the environment names.

    Args:
        folder: of this process's journal.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    async def run(self) -> None:
        """Keep the process up until cancelled."""
        while True:
            if self._process is None or self._process.poll() is not None:
                if self._process is not None:
                    status = self._process.returncode
                    logger.error("what carries usage to the store has ended with status %s and is started", status)
                self._process = await asyncio.to_thread(self._start)
            await asyncio.sleep(_PERIOD_S)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mlaas.router.money.shipping", str(self._folder), str(os.getpid())]
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=inherited_environment())

    async def finish(self) -> None:
        """Let the process carry what is left and end."""
        if self._process is None:
            return
        try:
            await asyncio.to_thread(self._process.communicate, timeout=_FINISH_S)
        except subprocess.TimeoutExpired:
            self._process.kill()


class _Round:
    """One look at the journal; says once when it begins to fail and once when it works again."""

    def __init__(self, shipper: Shipper) -> None:
        self._shipper = shipper
        self._is_failing = False

    def __call__(self) -> None:
        try:
            self._shipper.ship()
        except (PlatformError, OSError) as error:
            if not self._is_failing:
                logger.error("cannot carry usage to the store, trying again each second: %s", error)
            self._is_failing = True
        else:
            if self._is_failing:
                logger.warning("usage is carried to the store again")
            self._is_failing = False


def main(folder: Path, *, writer_pid: int) -> None:
    """Carry a process's journal until that process closes our standard input, or ends."""
    os.nice(_NICENESS)
    store = open_store(load_settings().store_url)
    ship = _Round(Shipper(JournalOf(folder, pid=writer_pid), UsageRepository(store)))
    while not select.select([sys.stdin], [], [], _PERIOD_S)[0]:
        ship()
    ship()


if __name__ == "__main__":
    main(Path(sys.argv[1]), writer_pid=int(sys.argv[2]))
