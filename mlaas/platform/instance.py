"""Bringing an instance up, healing it, and taking it down."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlaas.auth.keys import create_key
from mlaas.platform.head import Head, WorkerNode, forget
from mlaas.platform.parts import Part, Probe, ensure, probe_all
from mlaas.platform.processes import end, owned, runtime_dir
from mlaas.platform.scheduler import Scheduler
from mlaas.platform.serve import Gateway, Models
from mlaas.platform.tracking_server import TrackingServer
from mlaas.settings import Settings
from mlaas.store.engine import migrate, open_store
from mlaas.store.keys import KeyRepository

STOP_GRACE_S = 10.0
TENANT = "default"
"""The tenant of the keys that `up` makes."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """What `up` did."""

    healed: tuple[str, ...]
    """Parts that were not up before."""
    admin_key: str | None
    """The admin API key, the one time that it is made; None on every later `up`."""


def parts(settings: Settings) -> list[list[Part]]:
    """Return the instance's parts in stages: those of one stage start side by side, after the stage before."""
    if address := joined_address(settings):
        return [[WorkerNode(settings, address=address)]]
    return [
        [Head(settings), TrackingServer(settings)],
        [Scheduler(settings), Gateway(settings)],
        [Models(settings)],
    ]


def probe(settings: Settings) -> list[Probe]:
    """Probe every part of the instance."""
    return probe_all([part for stage in parts(settings) for part in stage])


def up(settings: Settings, *, address: str | None = None, progress: Callable[[Probe], None]) -> Started:
    """Start every part that is not up.

    Args:
        settings: the instance.
        address: `host:port` of a running cluster's head. This machine then becomes a node of it and starts no parts of
            its own. None: the cluster of the last `up`, or a head of its own.
        progress: called with the probe of each part as it is up.

    Raises:
        MlaasError: a part cannot start, or does not come up in time.
    """
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _one_at_a_time(settings):
        if address:
            _joined_file(settings).write_text(address)
        if joined_address(settings) is None:
            migrate(settings.store_url)
        healed: list[str] = []
        for stage in parts(settings):
            with ThreadPoolExecutor(len(stage)) as pool:
                for part, started in zip(stage, pool.map(ensure, stage), strict=True):
                    if started:
                        healed.append(part.name)
                    progress(part.probe())
        admin_key = None if joined_address(settings) else create_first_keys(settings)
    return Started(healed=tuple(healed), admin_key=admin_key)


def down(settings: Settings) -> int:
    """End every process of the instance and return how many there were. Data stays; of the cluster nothing does."""
    if not settings.home.exists():
        return 0
    with _one_at_a_time(settings):
        ended = 0
        while processes := owned(settings.home):  # Again, for what a dying parent has started meanwhile.
            end(processes, grace_s=STOP_GRACE_S)
            ended += len(processes)
        _joined_file(settings).unlink(missing_ok=True)
        forget(settings)
        shutil.rmtree(runtime_dir(settings.home) / "haproxy", ignore_errors=True)
    return ended


def joined_address(settings: Settings) -> str | None:
    """Return the address of the cluster that this machine has joined; None when it runs a head of its own."""
    file = _joined_file(settings)
    return file.read_text() if file.exists() else None


def create_first_keys(settings: Settings) -> str | None:
    """Make what is missing of the command line's own key, kept in a file, and the admin key, returned."""
    repository = KeyRepository(open_store(settings.store_url))
    if not (path := settings.credentials_path).exists():
        own_secret, _ = create_key(repository, name="command line", tenant=TENANT, role="user")
        path.touch(mode=0o600)
        path.write_text(own_secret)
    if any(key.role == "admin" for key in repository.list()):
        return None
    admin_secret, _ = create_key(repository, name="admin", tenant=TENANT, role="admin")
    return admin_secret


@contextmanager
def _one_at_a_time(settings: Settings) -> Iterator[None]:
    """Let a second `up` or `down` of the same instance wait for the first."""
    with (settings.home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _joined_file(settings: Settings) -> Path:
    return settings.home / "joined"
