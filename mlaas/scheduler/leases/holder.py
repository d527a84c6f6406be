"""`with lease(spec) as gang:`: wait for one's turn, hold the gang, give it back."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from mlaas.errors import ConfigError, PlatformError
from mlaas.scheduler.leases.gang import Gang
from mlaas.scheduler.leases.hold import RETRY_S
from mlaas.scheduler.live.types import Outcome
from mlaas.settings import lease_id

if TYPE_CHECKING:
    from mlaas.scheduler.leases.verbs import HolderVerbs
    from mlaas.scheduler.live.types import Ticket
    from mlaas.scheduler.requests.spec import WorkloadSpec


@contextmanager
def lease(
    spec: WorkloadSpec | None = None,
    *,
    scheduler: HolderVerbs | None = None,
    tenant: str = "default",
    say: Callable[[str], None] = print,
) -> Iterator[Gang]:
    """Hold a gang while the block runs. Leaving it gives the gang back; an exception counts as a failed attempt.

    A process that the scheduler has started gets the gang that was placed for it. Any other asks with a spec and
    waits for its turn.

    Args:
        spec: what is asked for, without a command. Not used by a process that the scheduler has started.
        scheduler: None: the one of the Ray cluster that this process is connected to.
        tenant: who asks.
        say: told why it waits, each time the reason changes.

    Raises:
        AdmissionError: the spec could never run.
        ConfigError: there is no spec, and the scheduler has not started this process.
        Conflict: the workload has ended while it waited.
        PlatformError: there is no scheduler on this cluster. One that restarts is waited for.
    """
    placed = lease_id()
    if placed is None and spec is None:
        text = "a process that the scheduler has not started asks for its gang with a spec: lease(WorkloadSpec(...))"
        raise ConfigError("no_spec", text)
    turn = _Turn(scheduler or _connect(), tenant=tenant, say=say)
    with _told_by_its_lease() if placed else nullcontext():
        gang = Gang(turn.verbs, turn.ask(placed or spec), is_command=placed is not None, wait=turn.ask)
        try:
            yield gang
        except BaseException as error:
            gang.release(Outcome.FAILED, message=f"{type(error).__name__}: {error}")
            raise
        gang.release(Outcome.FINISHED)


class _Turn:
    """Asks for a gang until it is placed."""

    def __init__(self, verbs: HolderVerbs, *, tenant: str, say: Callable[[str], None]) -> None:
        self.verbs = verbs
        self._tenant = tenant
        self._say = say
        self._said = ""
        self._is_known = False

    def ask(self, request: str | WorkloadSpec | None) -> Ticket:
        """Return the ticket of a placed gang.

        Raises:
            AdmissionError: the spec could never run.
            Conflict: the lease or workload has ended.
            NotFound: there is none, or it is another tenant's.
            PlatformError: there is no scheduler.
        """
        assert request is not None
        submission_id = None if isinstance(request, str) else f"held-{uuid.uuid4().hex[:12]}"
        while True:
            try:
                ticket = self.verbs.attach(request, tenant=self._tenant, holder=_holder(), submission_id=submission_id)
            except PlatformError as error:
                if error.code == "no_scheduler" and not self._is_known:
                    raise
                self._tell(error.message)
                time.sleep(RETRY_S)
                continue
            self._is_known = True
            if ticket.lease_id is not None:
                self._tell(f"{ticket.workload_id}: {ticket.reason}")
                return ticket
            request, submission_id = ticket.workload_id, None
            self._tell(f"{ticket.workload_id} waits: {ticket.reason}")

    def _tell(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)


@contextmanager
def _told_by_its_lease() -> Iterator[None]:
    """Ignore SIGTERM while the block runs, if this is the main thread.

    The scheduler sends it to a command that is to yield, for those that know no leases. The lease tells the same, with
    a deadline; who misses that is killed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _connect() -> HolderVerbs:
    """Return the scheduler of the Ray cluster that this process is connected to."""
    from mlaas.scheduler.on_ray.client import connect

    return connect()


def _holder() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
