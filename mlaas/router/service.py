"""The gateway as a running service: state, background loops, and their start and stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import aiohttp
from sqlalchemy import Engine

from mlaas.errors import PlatformError
from mlaas.observability.definitions import BREAKER, IN_FLIGHT, JOURNAL_LOST, JOURNAL_PENDING, PRICE_DRIFT, QUEUE_LENGTH
from mlaas.observability.exporter import Exporter
from mlaas.observability.metrics import Metrics
from mlaas.observability.tracing import Tracing
from mlaas.router.app import GatewayApp
from mlaas.router.asgi import Receive, Scope, Send
from mlaas.router.batches.executor import BatchExecutor
from mlaas.router.batches.routes import batch_routes
from mlaas.router.calls import RouterCalls
from mlaas.router.choice.demand_board import DemandBoard
from mlaas.router.choice.engines import EnginePoller
from mlaas.router.config import RouterConfig
from mlaas.router.config_file import load_config
from mlaas.router.files.folder import FileFolder
from mlaas.router.files.routes import file_routes
from mlaas.router.front import Front
from mlaas.router.gate import Gate
from mlaas.router.limits.meter import LedgerPort, Meter
from mlaas.router.model_routes import ModelRoutes
from mlaas.router.money.journal import Journal
from mlaas.router.money.journal_shipping import Shipper
from mlaas.router.money.shipping import Shipping, ShippingProcess, ShippingTask
from mlaas.router.operator_routes import OperatorRoutes
from mlaas.router.record import RequestRecord
from mlaas.router.reload import ConfigReload
from mlaas.router.responses.routes import response_routes
from mlaas.router.responses.service import ResponseService
from mlaas.router.routes import Route
from mlaas.router.types import LocalEndpoint, Readiness
from mlaas.store.batches import BatchRepository, FileRepository
from mlaas.store.responses import ResponseRepository
from mlaas.store.usage import UsageRepository

_REFRESH_S = 1.0
_GC_THRESHOLD = 10_000

logger = logging.getLogger(__name__)


class EndpointSource(Protocol):
    """Where the addresses of local replicas come from."""

    def watch(self) -> AsyncIterator[Sequence[LocalEndpoint]]:
        """Yield the whole list of live endpoints now and after each change, for ever."""


class GatewayService:
    """An ASGI application with a lifespan: it starts its loops and connections at startup and ends them at shutdown.

    Args:
        config_path: the router's file; it is read again whenever it changes.
        gate: knows who is calling; refreshed here each second.
        store: where usage, responses and batches are kept.
        folder: of this instance; journal, files and announced ports lie in it.
        ledger: divides limits among the gateway's replicas.
        list_deployed: names the local models that are deployed, live or not; blocks; asked each second.
        endpoints: where local replicas are announced.
        tracing: None where nobody collects traces.
        replica: name of this process, of no other one before or after it.
        has_shipping_process: usage is carried to the store by a process beside this one, which finds the store in the
            environment. Otherwise in a thread.
        further_routes: what else answers at this port, after the gateway's own routes.

    Raises:
        ConfigError: the router's file is wrong.
    """

    def __init__(
        self,
        *,
        config_path: Path,
        gate: Gate,
        store: Engine,
        folder: Path,
        ledger: LedgerPort,
        list_deployed: Callable[[], Iterable[str]],
        endpoints: EndpointSource,
        tracing: Tracing | None,
        replica: str,
        has_shipping_process: bool = False,
        further_routes: Sequence[Route] = (),
    ) -> None:
        self._gate = gate
        self._list_deployed = list_deployed
        self._endpoints = endpoints
        self._tracing = tracing
        self._config: RouterConfig = load_config(config_path)
        self._meter = Meter(ledger)
        self._journal = Journal(folder / "journal")
        self._shipper = Shipper(self._journal, UsageRepository(store))
        self._shipping: Shipping = (
            ShippingProcess(self._journal.folder) if has_shipping_process else ShippingTask(self._shipper)
        )
        self._metrics = Metrics(replica=replica)
        self._exporter = Exporter(self._metrics, folder=folder / "metrics", replica=replica)
        self._board = DemandBoard(folder / "demand", replica=replica)
        self._store = store
        self._replica = replica
        self._files = FileFolder(folder / "files")
        self._config_path = config_path
        self._further_routes = further_routes
        self._num_in_flight = 0
        self._app: GatewayApp | None = None
        self._router: RouterCalls | None = None
        self._session: aiohttp.ClientSession | None = None
        self._responses: ResponseService | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or take part in startup and shutdown (ASGI)."""
        if self._app is not None and scope["type"] == "http":
            self._num_in_flight += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._num_in_flight -= 1
        elif scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        else:
            raise RuntimeError(f"the gateway does not speak {scope['type']!r}, or has not started")

    async def start(self) -> None:
        """Load the keys, open connections and start the loops. A store that is out does not hinder."""
        router = RouterCalls(self._config, meter=self._meter, metrics=self._metrics, folder=self._config_path.parent)
        reload = ConfigReload(self._config_path, router.apply)
        self._session = aiohttp.ClientSession(trust_env=False)
        poller = EnginePoller(router.fleet, self._session)
        usage = UsageRepository(self._store)
        responses = ResponseService(store=ResponseRepository(self._store), owner=self._replica)
        front = Front(router=router, responses=responses, find_principal=self._gate.find_principal, record=self._record)
        files, batches = FileRepository(self._store), BatchRepository(self._store)
        executor = BatchExecutor(
            batches=batches, files=files, folder=self._files, perform=front.perform, owner=self._replica
        )
        models = ModelRoutes(
            catalog=lambda: router.catalog,
            fleet=lambda: router.fleet,
            started_at_s=time.time(),
            condition=lambda: {"config": asdict(reload.state)},
        )
        self._router, self._responses = router, responses
        self._app = GatewayApp(
            calls=front,
            gate=self._gate,
            record=self._record,
            tracing=self._tracing,
            routes=(
                *models.routes(),
                *OperatorRoutes(router=router, usage=usage, metrics=self._metrics, board=self._board).routes(),
                *response_routes(responses),
                *file_routes(files, self._files),
                *batch_routes(batches, files, wake=executor.wake),
                *self._further_routes,
            ),
        )
        self._watch_metrics(router)
        with suppress(OSError):
            self._exporter.start()
        with suppress(PlatformError):
            await asyncio.to_thread(self._gate.refresh)
        _relax_collector()
        self._loops = [
            asyncio.create_task(loop)
            for loop in (
                _keep_doing("refresh the API keys", lambda: asyncio.to_thread(self._gate.refresh)),
                _keep_doing("list the deployed models", self._refresh_deployed),
                _keep_doing("look after stored responses", responses.tend),
                _keep_doing("follow the router's file", reload.check),
                _keep_doing("ask the engines of local models", poller.poll),
                _keep_doing("follow the fleet", self._tick),
                _keep_doing("tell the other replicas of the demand", self._post_demand),
                self._follow_endpoints(),
                self._meter.run(),
                executor.run(),
                self._shipping.run(),
            )
        ]

    async def stop(self) -> None:
        """End the loops, give back what limits were held, carry the last usage, close the connections."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._responses is not None:
            await self._responses.stop()
        with suppress(PlatformError):
            await self._meter.close()
        self._journal.close()
        await self._shipping.finish()
        self._exporter.stop()
        await asyncio.to_thread(self._board.close)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        if self._session is not None:
            await self._session.close()
        if self._router is not None:
            await self._router.egress.close()

    def _record(self, record: RequestRecord) -> None:
        self._journal.record(record)
        self._metrics.record(record)

    def _watch_metrics(self, router: RouterCalls) -> None:
        """Have the state that changes by itself read whenever somebody looks."""
        metrics = self._metrics
        metrics.watch(IN_FLIGHT, lambda: {(): float(self._num_in_flight)})
        metrics.watch(
            BREAKER,
            lambda: {
                (each.name,): 1.0 if each.readiness is Readiness.PROBE else 2.0
                for each in router.fleet.unwell(now_s=time.monotonic())
            },
        )
        metrics.watch(
            QUEUE_LENGTH,
            lambda: {(model,): float(router.admission.num_queued(model)) for model in router.fleet.engines()},
        )
        metrics.watch(JOURNAL_PENDING, lambda: {(): float(self._shipper.pending_bytes())})
        metrics.watch(JOURNAL_LOST, lambda: {(): float(self._journal.num_lost + self._shipper.num_unreadable)})
        metrics.watch(
            PRICE_DRIFT,
            lambda: {(name,): ratio for name, ratio in router.prices.drift().items()},
        )

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

    async def _tick(self) -> None:
        assert self._router is not None
        self._router.tick(now_s=time.monotonic())

    async def _post_demand(self) -> None:
        assert self._router is not None
        await asyncio.to_thread(self._board.post, self._router.demand(now_s=time.monotonic()))

    async def _refresh_deployed(self) -> None:
        assert self._router is not None
        self._router.fleet.replace_deployed(await asyncio.to_thread(self._list_deployed))

    async def _follow_endpoints(self) -> None:
        assert self._router is not None
        while True:
            try:
                async for endpoints in self._endpoints.watch():
                    self._router.fleet.replace_endpoints(endpoints)
            except Exception as error:  # noqa: BLE001  # outermost loop of the service: the last known endpoints stay in use
                logger.warning("cannot follow the endpoints of local models, trying again: %s", error)
            await asyncio.sleep(_REFRESH_S)


def _relax_collector() -> None:
    """Have Python look for cycles seldom, and never in what is there by now, which stays."""
    gc.collect()
    gc.freeze()
    # A request's objects go with their last reference. The default of 700 looks for cycles several times a request
    # when many are under way.
    gc.set_threshold(_GC_THRESHOLD)


async def _keep_doing(what: str, work: Callable[[], Awaitable[object]]) -> None:
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
