"""The part of the router that follows its file: one dispatcher for each configuration, on state that lives on."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from mlaas.auth.types import Principal
from mlaas.observability.metrics import Metrics
from mlaas.providers.base import Call
from mlaas.providers.vllm import LOCAL
from mlaas.router.abilities import Abilities
from mlaas.router.alarms import Alarms
from mlaas.router.asgi import Headers
from mlaas.router.caches.answering import Caching
from mlaas.router.caches.exact import ExactCache
from mlaas.router.caches.semantic import SemanticCache
from mlaas.router.catalog import Catalog, build_catalog
from mlaas.router.choice.admission import Admission
from mlaas.router.choice.demand import Demand
from mlaas.router.choice.fleet import Fleet
from mlaas.router.choice.flow import FlowLimits
from mlaas.router.choice.offers import Offers
from mlaas.router.choice.retry_budget import RetryBudget
from mlaas.router.config import RouterConfig
from mlaas.router.dispatch import Dispatcher
from mlaas.router.egress.client import Egress
from mlaas.router.exchange import World
from mlaas.router.fit import build_fitter
from mlaas.router.limits.meter import Meter
from mlaas.router.money.billing import Billing
from mlaas.router.money.local_prices import LocalPrices
from mlaas.router.money.prices import PriceBook
from mlaas.router.money.throughput import Throughput
from mlaas.router.record import RequestRecord
from mlaas.router.reply import Reply
from mlaas.router.tasks.quality import load_quality
from mlaas.router.types import Target, targets_of

logger = logging.getLogger(__name__)

_PRICE_S = 5.0
"""Time between two looks at what local models yield."""


class RouterCalls:
    """Answers calls by the configuration in force. `apply` puts another in force; calls under way keep theirs.

    Args:
        config: the first configuration.
        meter: holds keys to their limits.
        metrics: counts attempts.
        folder: where the router's file lies; paths inside it start there.

    Attributes:
        catalog: what model names stand for now.
        prices: what targets cost now.
        fleet: live state of upstreams; one for all configurations.
        egress: connections; likewise.
        admission: queues of local models; likewise.
    """

    catalog: Catalog
    prices: PriceBook

    def __init__(self, config: RouterConfig, *, meter: Meter, metrics: Metrics, folder: Path) -> None:
        self._meter = meter
        self._metrics = metrics
        self._folder = folder
        self._cache, self._semantic_cache = ExactCache(), SemanticCache()
        self._throughput = Throughput()
        self._told_s = time.monotonic()
        self._local_prices = LocalPrices(config.machine_hour_usd)
        self.egress = Egress(config.timeouts)
        self.admission = Admission(config.admission)
        self.fleet = Fleet(
            build_catalog(config),
            restart_wait_s=config.timeouts.restart_wait_s,
            num_queued=self.admission.num_queued,
        )
        self.apply(config)

    def apply(self, config: RouterConfig) -> None:
        """Put a configuration in force.

        Raises:
            ConfigError: it cannot be; the one before stays.
        """
        catalog = build_catalog(config)
        prices = PriceBook(
            kinds={name: each.kind or name for name, each in config.providers.items()},
            own=config.prices,
            local=self._local_prices,
        )
        abilities = Abilities(config)
        offers = Offers(
            config,
            price_of=lambda target: prices.per_token(target, at_s=time.time()),
            abilities=abilities,
            quality=load_quality(self._folder / config.quality) if config.quality else None,
        )
        self._local_prices.configure(config.machine_hour_usd)
        self.fleet.replace_catalog(catalog, offers)
        self.admission.configure(config.admission)
        self.egress.configure(
            config.timeouts,
            allow_private=[name for name, each in config.providers.items() if each.allow_private],
        )
        self.catalog, self.prices, self._config = catalog, prices, config
        if unpriced := [str(each) for each in prices.unpriced(self.targets(), at_s=time.time())]:
            logger.warning("without a price, and so counted as $0: %s; set `prices`", ", ".join(unpriced))
        self.dispatcher = Dispatcher(
            catalog=catalog,
            world=World(
                fleet=self.fleet,
                egress=self.egress,
                retries=RetryBudget(ratio=config.retries.budget_ratio, min_per_s=config.retries.min_per_s),
                limits=FlowLimits(restart_wait_s=config.timeouts.restart_wait_s),
                admission=self.admission,
                metrics=self._metrics,
                throughput=self._throughput,
                fitter=build_fitter(config, catalog, abilities),
            ),
            billing=Billing(prices=prices, meter=self._meter),
            caching=Caching(
                {name: each.cache for name, each in config.models.items() if each.cache is not None},
                exact=self._cache,
                semantic=self._semantic_cache,
            ),
            time_limits=Alarms(config.timeouts.total_s),
        )

    async def answer(
        self, call: Call, principal: Principal, reply: Reply, record: RequestRecord, *, is_fresh: bool
    ) -> None:
        """Answer a call.

        Raises:
            MlaasError: it is refused.
            ProviderFailed: nobody could answer, and nothing has been sent.
        """
        await self.dispatcher.answer(call, principal, reply, record, is_fresh=is_fresh)

    def limit_headers(self, principal: Principal) -> Headers:
        """Return what a caller is told of its limits."""
        return self._meter.headers(principal)

    def demand(self, *, now_s: float) -> tuple[Demand, ...]:
        """Return what callers want of each local model, as this replica sees it."""
        return self.fleet.demand(now_s=now_s, per_replica=self.per_replica)

    @property
    def per_replica(self) -> int:
        """Return how many requests one replica of a local model takes at a time."""
        return self._config.admission.per_replica

    def tick(self, *, now_s: float) -> None:
        """Follow the world, once a second: local capacity, and now and then what local tokens cost."""
        replicas = self.fleet.engines()
        for model, addresses in replicas.items():
            self.admission.resize(model, num_replicas=len(addresses))
        if now_s - self._told_s >= _PRICE_S:
            self._throughput.tell(self._local_prices, replicas=replicas, elapsed_s=now_s - self._told_s)
            self._told_s = now_s
        self._metrics.know(
            models=self.catalog.names(self.fleet.local_models), targets=[str(each) for each in self.targets()]
        )

    def targets(self) -> tuple[Target, ...]:
        """Return every target that the configuration names."""
        catalog = self.catalog
        aliased = [each for route in catalog.routes.values() for each in targets_of(route)]
        listed = [Target(provider=name.partition("/")[0], model=name.partition("/")[2]) for name in catalog.listed]
        local = [Target(provider=LOCAL, model=name) for name in sorted(self.fleet.local_models)]
        return tuple(dict.fromkeys((*aliased, *listed, *local)))
