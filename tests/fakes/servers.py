"""The gateway under uvicorn, in a thread of its own on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from mlaas.auth.keyring import KeyRing
from mlaas.auth.keys import create_key
from mlaas.observability.tracing import Tracing
from mlaas.router.gate import Gate
from mlaas.router.routes import Route
from mlaas.router.service import GatewayService
from mlaas.router.types import LocalEndpoint
from mlaas.store.engine import migrate, open_store
from mlaas.store.keys import KeyRepository
from tests.fakes.ledgers import LocalLedger


class StaticEndpoints:
    """Endpoints that a test changes by hand, from another thread than the gateway's."""

    def __init__(self, current: Sequence[LocalEndpoint] = ()) -> None:
        self._current = tuple(current)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()

    def replace(self, endpoints: Sequence[LocalEndpoint]) -> None:
        """Announce another list."""
        self._current = tuple(endpoints)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._changed.set)

    async def watch(self) -> AsyncIterator[Sequence[LocalEndpoint]]:
        """Yield the list now and after each change."""
        self._loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            yield self._current
            await self._changed.wait()


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A running gateway and what a test needs of it."""

    url: str
    key: str
    endpoints: StaticEndpoints
    keys: KeyRepository
    config_path: Path
    journal_path: Path
    store_path: Path

    def records(self) -> list[dict[str, Any]]:
        """Return the journal's records, oldest first."""
        files = sorted(self.journal_path.glob("*requests-*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@contextlib.contextmanager
def running_gateway(
    folder: Path,
    config: str,
    *,
    endpoints: Sequence[LocalEndpoint] = (),
    deployed: Sequence[str] = (),
    store_url: str = "",
    further_routes: Sequence[Route] = (),
    tracing: Tracing | None = None,
    replica: str = "test",
) -> Iterator[Gateway]:
    """Run the gateway over a store in `folder` that holds one key."""
    store_path = folder / "mlaas.db"
    migrate(f"sqlite:///{store_path}")
    keys = KeyRepository(open_store(f"sqlite:///{store_path}"))
    secret, _ = create_key(keys, name="test", tenant="tests", role="user")
    source = StaticEndpoints(endpoints)
    store = open_store(store_url or f"sqlite:///{store_path}")
    config_path = folder / "router.yaml"
    config_path.write_text(config)
    service = GatewayService(
        config_path=config_path,
        gate=Gate(KeyRing(KeyRepository(store))),
        store=store,
        folder=folder / "gateway",
        ledger=LocalLedger(store),
        list_deployed=lambda: deployed,
        endpoints=source,
        tracing=tracing,
        replica=replica,
        further_routes=further_routes,
    )
    settings = uvicorn.Config(service, port=0, log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    ready = threading.Event()
    while not server.started and thread.is_alive():
        ready.wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Gateway(
            url=f"http://127.0.0.1:{port}",
            key=secret,
            endpoints=source,
            keys=keys,
            config_path=config_path,
            journal_path=folder / "gateway" / "journal",
            store_path=store_path,
        )
    finally:
        server.should_exit = True
        thread.join(10)
