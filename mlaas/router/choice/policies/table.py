"""Which function each routing policy is."""

from __future__ import annotations

from collections.abc import Mapping

from mlaas.router.choice.policies import (
    auto,
    balanced,
    cheapest,
    failover,
    fastest,
    least_loaded,
    prefix_affinity,
    weighted,
)
from mlaas.router.choice.policies.base import Rank
from mlaas.router.types import RoutingPolicy

RANKS: Mapping[RoutingPolicy, Rank] = {
    RoutingPolicy.FAILOVER: failover.rank,
    RoutingPolicy.WEIGHTED: weighted.rank,
    RoutingPolicy.CHEAPEST: cheapest.rank,
    RoutingPolicy.FASTEST: fastest.rank,
    RoutingPolicy.BALANCED: balanced.rank,
    RoutingPolicy.LEAST_LOADED: least_loaded.rank,
    RoutingPolicy.PREFIX_AFFINITY: prefix_affinity.rank,
    RoutingPolicy.AUTO: auto.rank,
}
