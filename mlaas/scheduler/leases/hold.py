"""One lease, watched: heartbeats, and the latest signal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlaas.errors import NotFound, PlatformError
from mlaas.scheduler.live.types import LeaseSignal, Signal

if TYPE_CHECKING:
    from mlaas.scheduler.leases.verbs import HolderVerbs

RETRY_S = 1.0
"""Between two calls to a scheduler that does not answer: it is back within seconds."""
GIVE_BACK_TIMEOUT_S = 60.0
"""Twice the silence after which the scheduler takes a gang back by itself."""


class Hold:
    """Watches a lease in a thread. Each watch says that this process lives, so there is no other heartbeat."""

    def __init__(self, verbs: HolderVerbs, lease_id: str) -> None:
        self.lease_id = lease_id
        self.signal = LeaseSignal(lease_id=lease_id, number=0, signal=Signal.GO_ON)
        """The latest."""
        self.deadline_s = float("inf")
        """On the monotonic clock: when the gang is taken, once it is asked back."""
        self._verbs = verbs
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name=f"lease {lease_id}", daemon=True).start()

    def stop(self) -> None:
        """Watch no more; a call that is under way ends by itself."""
        self._stopped.set()

    def end(self, *, reason: str) -> None:
        """Note that the lease is over, as another verb has told."""
        self._take(LeaseSignal(lease_id=self.lease_id, number=self.signal.number, signal=Signal.OVER, reason=reason))

    def _watch(self) -> None:
        while not self._stopped.is_set() and self.signal.signal is not Signal.OVER:
            try:
                signal = self._verbs.watch(self.lease_id, after=self.signal.number)
            except NotFound as error:
                self.end(reason=error.message)
            except PlatformError:
                self._stopped.wait(RETRY_S)
            else:
                if signal.number > self.signal.number and not self._stopped.is_set():
                    self._take(signal)

    def _take(self, signal: LeaseSignal) -> None:
        if signal.signal is not Signal.GO_ON:
            self.deadline_s = time.monotonic() + (signal.within_s or 0.0)
        self.signal = signal


def persist(call: Callable[[], object], *, timeout_s: float | None) -> None:
    """Make a call until the scheduler answers.

    Args:
        call: what may be repeated.
        timeout_s: how long at most. None: for as long as it takes.

    Raises:
        PlatformError: it did not answer in time.
    """
    started_s = time.monotonic()
    while True:
        try:
            call()
        except PlatformError:
            if timeout_s is not None and time.monotonic() - started_s > timeout_s:
                raise
            time.sleep(RETRY_S)
        else:
            return
