"""The gateway as a running service: state, background loops, and their start and stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from mlaas.errors import PlatformError
from mlaas.router.access_log import AccessLog
from mlaas.router.app import GatewayApp
from mlaas.router.asgi import Receive, Scope, Send
from mlaas.router.catalog import Catalog
from mlaas.router.config import TimeoutConfig
from mlaas.router.dispatch import Dispatcher
from mlaas.router.egress import Egress
from mlaas.router.fleet import Fleet
from mlaas.router.flow import FlowLimits
from mlaas.router.gate import Gate
from mlaas.router.types import LocalEndpoint

_REFRESH_S = 1.0

logger = logging.getLogger(__name__)


class EndpointSource(Protocol):
    """Where the addresses of local replicas come from."""

    def watch(self) -> AsyncIterator[Sequence[LocalEndpoint]]:
        """Yield the whole list of live endpoints now and after each change, for ever."""


class GatewayService:
    """An ASGI application with a lifespan: it starts its loops and connections at startup and ends them at shutdown.

    Args:
        catalog: providers and aliases.
        timeouts: bounds on waiting.
        gate: knows who is calling; refreshed here each second.
        list_deployed: names the local models that are deployed, live or not; blocks; asked each second.
        endpoints: where local replicas are announced.
        access_log: flushed here each second.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        timeouts: TimeoutConfig,
        gate: Gate,
        list_deployed: Callable[[], Iterable[str]],
        endpoints: EndpointSource,
        access_log: AccessLog,
    ) -> None:
        self._catalog = catalog
        self._timeouts = timeouts
        self._gate = gate
        self._list_deployed = list_deployed
        self._endpoints = endpoints
        self._access_log = access_log
        self._fleet = Fleet(catalog, restart_wait_s=timeouts.restart_wait_s)
        self._egress: Egress | None = None
        self._app: GatewayApp | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or take part in startup and shutdown (ASGI)."""
        if self._app is not None and scope["type"] == "http":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        else:
            raise RuntimeError(f"the gateway does not speak {scope['type']!r}, or has not started")

    async def start(self) -> None:
        """Load the keys, open the connection pool and start the loops. A store that is out does not hinder."""
        self._egress = Egress(self._timeouts)
        self._app = GatewayApp(
            dispatcher=Dispatcher(
                catalog=self._catalog,
                fleet=self._fleet,
                egress=self._egress,
                limits=FlowLimits(restart_wait_s=self._timeouts.restart_wait_s),
            ),
            gate=self._gate,
            access_log=self._access_log,
            started_at_s=time.time(),
        )
        with suppress(PlatformError):
            await asyncio.to_thread(self._gate.refresh)
        self._loops = [
            asyncio.create_task(_keep_doing("refresh the API keys", lambda: asyncio.to_thread(self._gate.refresh))),
            asyncio.create_task(_keep_doing("list the deployed models", self._refresh_deployed)),
            asyncio.create_task(_keep_doing("write the access log", lambda: asyncio.to_thread(self._access_log.flush))),
            asyncio.create_task(self._follow_endpoints()),
        ]

    async def stop(self) -> None:
        """End the loops, write what is left of the log and close the connections."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        with suppress(OSError):
            await asyncio.to_thread(self._access_log.flush)
        if self._egress is not None:
            await self._egress.close()

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _refresh_deployed(self) -> None:
        self._fleet.replace_deployed(await asyncio.to_thread(self._list_deployed))

    async def _follow_endpoints(self) -> None:
        while True:
            try:
                async for endpoints in self._endpoints.watch():
                    self._fleet.replace_endpoints(endpoints)
            except Exception as error:  # noqa: BLE001  # outermost loop of the service: the last known endpoints stay in use
                logger.warning("cannot follow the endpoints of local models, trying again: %s", error)
            await asyncio.sleep(_REFRESH_S)


async def _keep_doing(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do something each second; say once when it begins to fail and once when it works again."""
    is_failing = False
    while True:
        try:
            await work()
            if is_failing:
                logger.warning("can %s again", what)
            is_failing = False
        except Exception as error:  # noqa: BLE001  # outermost loop of the service
            if not is_failing:
                logger.error("cannot %s, trying again each second: %s", what, error)
            is_failing = True
        await asyncio.sleep(_REFRESH_S)
