"""What is believed of a runtime: a stated estimate, corrected by history and by the time a run has already taken.

A belief is a log-normal distribution of the total runtime. Its parameters come from a regression of true runtimes on
estimates, learned from what has finished, so an estimate that is always three times too short is read as three times
longer, and one that says nothing is read as nothing. Conditioning on the time already run does the rest: a run past
its estimate is expected to take longer and longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIGMAS = np.round(np.arange(0.1, 3.05, 0.1), 1)
"""Spreads that the curves are tabulated for, in log units."""
PRIOR_SIGMA = 1.0
"""Spread of runtime over estimate before anything has finished: a factor of e either way."""
PRIOR_SIGMA_UNKNOWN = 2.0
"""Spread with no estimate and no history; runtimes of whole clusters spread about this far."""
PRIOR_RUNTIME_S = 1800.0
"""Typical runtime assumed with no estimate and no history."""
PRIOR_WEIGHT = 30.0
"""Finished runs that the prior weighs as much as."""
TENANT_WEIGHT = 20.0
"""Finished runs of a tenant at which its own bias counts as much as everyone's."""
REPORTED_SIGMA = 0.3
"""Spread of what is left over what a run itself says is left: steps are counted, their pace changes."""
SHORTEST_S = 1.0
_LOG_X = np.linspace(-7.0, 9.0, 321)
"""Grid of the time already run over the typical runtime, in log units."""
_TAIL = 1e-13


@dataclass(frozen=True, slots=True)
class Belief:
    """A log-normal runtime: median `exp(log_median)` seconds, spread `sigma` in log units."""

    log_median: float
    sigma: float
    from_s: float = 0.0
    """It is about the time after this much has been run; above 0 once the run has said itself how much is left."""


def reported(left_s: float, *, attained_s: float) -> Belief:
    """Return the belief about a run that has run `attained_s`, and says that it has `left_s` to go."""
    return Belief(math.log(max(left_s, SHORTEST_S)), REPORTED_SIGMA, attained_s)


@dataclass
class _Moments:
    count: float = 0.0
    mean: float = 0.0
    square: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1.0
        delta = value - self.mean
        self.mean += delta / self.count
        self.square += delta * (value - self.mean)


@dataclass
class History:
    """Runtimes of what has finished, as running moments.

    It grows by `observe`; a snapshot holds beliefs already drawn from it.
    """

    _pairs: _Moments = field(default_factory=_Moments)
    _estimates: _Moments = field(default_factory=_Moments)
    _cross: float = 0.0
    _by_tenant: dict[str, _Moments] = field(default_factory=dict)
    _by_name: dict[tuple[str, str], _Moments] = field(default_factory=dict)
    _unstated: dict[str, _Moments] = field(default_factory=dict)

    def observe(self, *, tenant: str, name: str, estimate_s: float | None, runtime_s: float) -> None:
        """Learn from a run that finished after `runtime_s` seconds of its own work, pauses and restarts not counted."""
        log_runtime = math.log(max(runtime_s, SHORTEST_S))
        if name:
            self._by_name.setdefault((tenant, name), _Moments()).add(log_runtime)
        for key in (tenant, ""):
            self._unstated.setdefault(key, _Moments()).add(log_runtime)
        if estimate_s is None:
            return
        log_estimate = math.log(max(estimate_s, SHORTEST_S))
        slope, intercept = self._line()
        self._by_tenant.setdefault(tenant, _Moments()).add(log_runtime - slope * log_estimate - intercept)
        before = log_estimate - self._estimates.mean
        self._estimates.add(log_estimate)
        self._pairs.add(log_runtime)
        self._cross += before * (log_runtime - self._pairs.mean)

    def believe(self, *, tenant: str, name: str, estimate_s: float | None) -> Belief:
        """Return the belief about a run with this estimate, before it has started."""
        if estimate_s is None:
            return self._without_estimate(tenant, name)
        slope, intercept = self._line()
        bias = 0.0
        own = self._by_tenant.get(tenant)
        if own is not None:
            bias = own.mean * own.count / (own.count + TENANT_WEIGHT)
        log_estimate = math.log(max(estimate_s, SHORTEST_S))
        return Belief(slope * log_estimate + intercept + bias, _on_grid(self._residual_sigma(slope)))

    def _line(self) -> tuple[float, float]:
        """Slope and intercept of log runtime on log estimate, drawn to (1, 0) by the prior's weight."""
        prior = PRIOR_WEIGHT * PRIOR_SIGMA**2
        slope = (self._cross + prior) / (self._estimates.square + prior)
        slope = min(1.0, max(0.0, slope))
        trust = self._pairs.count / (self._pairs.count + PRIOR_WEIGHT)
        return slope, trust * (self._pairs.mean - slope * self._estimates.mean)

    def _residual_sigma(self, slope: float) -> float:
        residual = self._pairs.square - 2 * slope * self._cross + slope**2 * self._estimates.square
        return math.sqrt(
            (max(residual, 0.0) + PRIOR_WEIGHT * PRIOR_SIGMA**2) / (max(self._pairs.count, 0.0) + PRIOR_WEIGHT)
        )

    def _without_estimate(self, tenant: str, name: str) -> Belief:
        log_median, variance = math.log(PRIOR_RUNTIME_S), PRIOR_SIGMA_UNKNOWN**2
        layers = (self._unstated.get(""), self._unstated.get(tenant), self._by_name.get((tenant, name)))
        for weight, seen in zip((PRIOR_WEIGHT, TENANT_WEIGHT, 2.0), layers, strict=True):
            if seen is not None:
                total = seen.count + weight
                log_median = (seen.count * seen.mean + weight * log_median) / total
                variance = (seen.square + weight * variance) / total
        return Belief(log_median, _on_grid(math.sqrt(variance)))


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected of runs that have had some time already."""

    rate: Floats
    """Gittins index in 1/s: the best rate at which a run is likely to finish if served on."""
    remaining_s: Floats
    """Expected seconds left."""


def outlook(log_median: Floats, sigma: Floats, attained_s: Floats) -> Outlook:
    """Return what is expected of each run, given that it has not finished in the `attained_s` it has had.

    The Gittins index is that of the best horizon: the chance to finish within it over the time expected to be spent
    on it. Serving the highest first is optimal for mean completion time on one server when runtimes are known only as
    distributions. With exact estimates it is shortest remaining time first; with useless ones it favours what has run
    least.

    Args:
        log_median: Log of the median runtime of each run's belief.
        sigma: Spread of each belief in log units, on the grid of `SIGMAS`.
        attained_s: Time each has run.

    Source: Gittins, "Bandit processes and dynamic allocation indices", JRSS B 1979; Scully et al., "The Gittins
    policy", 2021.
    """
    start, part, scale = _on_curves(log_median, sigma, attained_s)
    rates, residuals = _curves()
    return Outlook(np.exp(_between(rates, start, part) - scale), np.exp(scale - _between(residuals, start, part)))


def service_rate(log_median: Floats, sigma: Floats, attained_s: Floats) -> Floats:
    """Return the `rate` of the `outlook` alone, for half the price."""
    start, part, scale = _on_curves(log_median, sigma, attained_s)
    rate: Floats = np.exp(_between(_curves()[0], start, part) - scale)
    return rate


def _on_curves(log_median: Floats, sigma: Floats, attained_s: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return each run's point before it on the curves, laid end to end, how far it is to the next, and its scale."""
    log_x = np.log(np.maximum(attained_s, 1e-3)) - log_median
    position = ((log_x - _LOG_X[0]) / (_LOG_X[1] - _LOG_X[0])).clip(0.0, len(_LOG_X) - 1.001)
    column = position.astype(np.int64)
    row = np.rint(sigma * 10.0).astype(np.int64) - 1
    scale = log_median + np.maximum(log_x - _LOG_X[-1], 0.0)
    return row * len(_LOG_X) + column, position - column, scale


def _between(curves: Floats, start: NDArray[np.int64], part: Floats) -> Floats:
    between: Floats = curves.take(start) * (1.0 - part) + curves.take(start + 1) * part
    return between


def exceeded(estimate_s: Floats, attained_s: Floats) -> Floats:
    """Return stated estimates, each doubled until it is above the time already run."""
    over = np.maximum(attained_s, SHORTEST_S) / np.maximum(estimate_s, SHORTEST_S)
    doublings = np.where(over >= 1.0, np.floor(np.log2(np.maximum(over, 1.0))) + 1.0, 0.0)
    grown: Floats = np.maximum(estimate_s, SHORTEST_S) * np.exp2(doublings)
    return grown


def _on_grid(sigma: float) -> float:
    return float(min(max(round(sigma, 1), SIGMAS[0]), SIGMAS[-1]))


@lru_cache(maxsize=1)
def _curves() -> tuple[Floats, Floats]:
    """Log Gittins index and log of one over the mean residual, for a median of one second.

    A row for each spread, a column for each age.
    """
    pairs = [_curve(float(sigma)) for sigma in SIGMAS]
    return np.array([index for index, _ in pairs]), np.array([residual for _, residual in pairs])


def _curve(sigma: float) -> tuple[Floats, Floats]:
    log_x = np.linspace(_LOG_X[0], _LOG_X[-1] + 8.0 * sigma, len(_LOG_X) + 320)
    x = np.exp(log_x)
    survival = np.array([0.5 * math.erfc(value / (sigma * math.sqrt(2.0))) for value in log_x])
    steps = 0.5 * (survival[1:] + survival[:-1]) * np.diff(x)
    served = np.concatenate([[0.0], np.cumsum(steps)])
    left = np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
    alive = survival > _TAIL
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = (survival[:, None] - survival[None, :]) / (served[None, :] - served[:, None])
        index = np.max(np.where(np.triu(np.ones_like(rates, dtype=bool), 1), rates, 0.0), axis=1)
        residual = survival / left
    last = int(np.flatnonzero(alive)[-2])
    for curve in (index, residual):
        curve[last:] = curve[last] * x[last] / x[last:]
    return np.log(np.interp(_LOG_X, log_x, index)), np.log(np.interp(_LOG_X, log_x, residual))
