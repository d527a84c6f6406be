"""Plain numbers of one process, rendered for Prometheus when somebody scrapes."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from mlaas.observability.series import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from mlaas.observability.definitions import Definition

Labels = tuple[str, ...]
"""Values of a definition's labels, in its order."""


class Meters(Collector):
    """Gauges, counters and histograms by their definitions. What was never counted is not there.

    Whoever counts says which: `replace` makes a gauge, `add` a counter, `observe` a histogram.
    """

    def __init__(self) -> None:
        self._gauges: dict[Definition, Mapping[Labels, float]] = {}
        self._counters: dict[Definition, dict[Labels, float]] = {}
        self._histograms: dict[Definition, dict[Labels, Histogram]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def replace(self, definition: Definition, values: Mapping[Labels, float]) -> None:
        """Set all values of a gauge; labels that are not named any more vanish."""
        self._gauges[definition] = values

    def add(self, definition: Definition, labels: Labels = (), *, amount: float = 1.0) -> None:
        """Count up."""
        values = self._counters.setdefault(definition, {})
        values[labels] = values.get(labels, 0.0) + amount

    def observe(self, definition: Definition, value: float, labels: Labels = ()) -> None:
        """Count a value in its bucket."""
        spread = self._histograms.setdefault(definition, {})
        if labels not in spread:
            spread[labels] = Histogram(definition)
        spread[labels].observe(value)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the families, for `prometheus_client`."""
        # Copies: the loop goes on counting while another thread renders.
        for definition, gauge in list(self._gauges.items()):
            family = GaugeMetricFamily(definition.name, definition.help, labels=definition.labels)
            for labels, value in list(gauge.items()):
                family.add_metric(labels, value)
            yield family
        for definition, counter in list(self._counters.items()):
            total = CounterMetricFamily(definition.name, definition.help, labels=definition.labels)
            for labels, value in list(counter.items()):
                total.add_metric(labels, value)
            yield total
        for definition, spread in list(self._histograms.items()):
            yield _spread(definition, dict(spread))


def _spread(definition: Definition, parts: Mapping[Labels, Histogram]) -> Metric:
    family = HistogramMetricFamily(definition.name, definition.help, labels=definition.labels)
    bounds = [*(f"{bound:g}" for bound in definition.buckets), "+Inf"]
    for labels, part in parts.items():
        buckets = list(zip(bounds, accumulate(part.counts), strict=True))
        family.add_metric(labels, buckets, sum_value=part.total)
    return family
