"""Counts requests and attempts, and renders them for Prometheus.

A request costs one dictionary lookup and a few additions on the event loop; the families that `prometheus_client`
writes out are built from those numbers at each scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from mlaas.observability.definitions import (
    ATTEMPTS,
    CACHE_HITS,
    COST,
    DURATION,
    ERRORS,
    FALLBACKS,
    INTER_TOKEN,
    QUEUE_WAIT,
    REFUSALS,
    REQUESTS,
    RETRIES,
    TOKENS,
    TTFT,
    WATCHED,
    Definition,
)
from mlaas.observability.series import EndedRequest, Histogram, Labels, Series

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of what `Metrics.render` returns."""

OTHER = "other"
"""Stands for every name that is not known, so that callers cannot make series without end."""

Read = Callable[[], Mapping[tuple[str, ...], float]]
"""Returns the values of a watched metric, by the values of its labels."""

_MAX_SERIES = 2000
_MAX_KEYS = 10_000


class Metrics(Collector):
    """The metrics of one gateway replica.

    Args:
        replica: name of this process, a label of every series.
    """

    def __init__(self, *, replica: str) -> None:
        self._replica = replica
        self._models: frozenset[str] = frozenset()
        self._targets: frozenset[str] = frozenset()
        self._series: dict[Labels, Series] = {}
        self._by_key: dict[tuple[object, ...], Series] = {}
        self._attempts: dict[tuple[str, ...], float] = {}
        self._retries: dict[tuple[str, ...], float] = {}
        self._fallbacks: dict[tuple[str, ...], float] = {}
        self._watched: dict[Definition, Read] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def know(self, *, models: Collection[str], targets: Collection[str]) -> None:
        """Name the models and targets that get series of their own; all others are counted as `other`."""
        if self._models != set(models) or self._targets != set(targets):
            self._models, self._targets = frozenset(models), frozenset(targets)
            self._by_key.clear()

    def watch(self, definition: Definition, read: Read) -> None:
        """Have a metric read at each scrape.

        Args:
            definition: one of `WATCHED`.
            read: called from the thread that renders; must not block.
        """
        self._watched[definition] = read

    def record(self, request: EndedRequest) -> None:
        """Count a request that has ended; one that was no call to a model is not counted."""
        if not request.operation:
            return
        key = (request.operation, request.model, request.target, request.status, request.error, request.cache)
        series = self._by_key.get(key)
        if series is None:
            series = self._find(key, request)
        series.add(request)

    def count_attempt(self, target: str, *, outcome: str, previous: str | None = None) -> None:
        """Count a try at an upstream that has ended.

        Args:
            target: who was tried, `provider/model`.
            outcome: `ok`, or the kind of failure.
            previous: who had failed before it for the same request; None for the first try.
        """
        name = target if target in self._targets else OTHER
        _add(self._attempts, (name, outcome), 1)
        if previous is not None:
            _add(self._retries if previous == target else self._fallbacks, (name,), 1)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the families, for `prometheus_client`."""
        # A copy: the event loop goes on counting.
        series = list(self._series.items())
        yield from self._count_requests(series)
        for definition, pick in _HISTOGRAMS.items():
            yield self._spread(definition, [(labels, pick(each)) for labels, each in series])
        yield self._counter(ATTEMPTS, self._attempts)
        yield self._counter(RETRIES, self._retries)
        yield self._counter(FALLBACKS, self._fallbacks)
        for definition in WATCHED:
            read = self._watched.get(definition)
            if read is not None:
                gauge = GaugeMetricFamily(definition.name, definition.help, labels=("replica", *definition.labels))
                for values, value in read().items():
                    gauge.add_metric((self._replica, *values), value)
                yield gauge

    def _find(self, key: tuple[object, ...], request: EndedRequest) -> Series:
        """Return the series of a key that was not met yet, under the names that are known."""
        target = request.target or ""
        labels = Labels(
            operation=request.operation,
            model=request.model if request.model in self._models else OTHER,
            target=target if target in self._targets or not target else OTHER,
            status=request.status,
            error=request.error or "",
            cache=request.cache,
        )
        if len(self._series) >= _MAX_SERIES and labels not in self._series:
            labels = labels._replace(model=OTHER, target=target and OTHER, error=OTHER if request.error else "")
        if len(self._by_key) >= _MAX_KEYS:
            self._by_key.clear()
        series = self._by_key[key] = self._series.setdefault(labels, Series())
        return series

    def _count_requests(self, series: list[tuple[Labels, Series]]) -> Iterator[Metric]:
        requests: dict[tuple[str, ...], float] = {}
        errors: dict[tuple[str, ...], float] = {}
        refusals: dict[tuple[str, ...], float] = {}
        hits: dict[tuple[str, ...], float] = {}
        tokens: dict[tuple[str, ...], float] = {}
        cost: dict[tuple[str, ...], float] = {}
        for labels, each in series:
            operation, model, target = labels[:3]
            _add(requests, (operation, model, target, str(labels.status)), each.num_requests)
            if labels.error:
                _add(errors, (operation, model, labels.error), each.num_requests)
            if labels.is_refusal:
                _add(refusals, (model, labels.error), each.num_requests)
            if labels.cache:
                _add(hits, (model, labels.cache), each.num_requests)
            if target:
                for kind in ("input", "cache_read", "cache_write", "output", "reasoning"):
                    _add(tokens, (model, target, kind), getattr(each, f"{kind}_tokens"))
                _add(cost, (model, target), each.cost_usd)
        yield self._counter(REQUESTS, requests)
        yield self._counter(ERRORS, errors)
        yield self._counter(REFUSALS, refusals)
        yield self._counter(CACHE_HITS, hits)
        yield self._counter(TOKENS, tokens)
        yield self._counter(COST, cost)

    def _counter(self, definition: Definition, values: Mapping[tuple[str, ...], float]) -> Metric:
        family = CounterMetricFamily(definition.name, definition.help, labels=("replica", *definition.labels))
        for labels, value in list(values.items()):
            family.add_metric((self._replica, *labels), value)
        return family

    def _spread(self, definition: Definition, parts: list[tuple[Labels, Histogram]]) -> Metric:
        counts: dict[tuple[str, ...], list[int]] = {}
        totals: dict[tuple[str, ...], float] = {}
        for labels, part in parts:
            found = counts.setdefault(labels[:3], [0] * len(part.counts))
            counts[labels[:3]] = [a + b for a, b in zip(found, part.counts, strict=True)]
            _add(totals, labels[:3], part.total)
        family = HistogramMetricFamily(definition.name, definition.help, labels=("replica", *definition.labels))
        bounds = [*(f"{bound:g}" for bound in definition.buckets), "+Inf"]
        for values, each in counts.items():
            if any(each):
                buckets = list(zip(bounds, accumulate(each), strict=True))
                family.add_metric((self._replica, *values), buckets, sum_value=totals[values])
        return family


_HISTOGRAMS: dict[Definition, Callable[[Series], Histogram]] = {
    DURATION: lambda series: series.duration,
    TTFT: lambda series: series.ttft,
    INTER_TOKEN: lambda series: series.inter_token,
    QUEUE_WAIT: lambda series: series.queue_wait,
}


def _add(sums: dict[tuple[str, ...], float], key: tuple[str, ...], value: float) -> None:
    sums[key] = sums.get(key, 0) + value
