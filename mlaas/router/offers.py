"""What each target is: configuration, price list and quality table, put together for decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from mlaas.providers.vllm import LOCAL
from mlaas.router.config import CapabilityConfig, RouterConfig
from mlaas.router.types import Offer, Target, TokenPrice

Quality = Mapping[str, Mapping[str, float]]
"""Scores by `provider/model`, then by task; the task "" holds the score over all tasks."""

_PRICE_S = 1.0


class PerToken(Protocol):
    """A price in US dollars for each token."""

    @property
    def input_usd(self) -> float:
        """For one token read."""

    @property
    def output_usd(self) -> float:
        """For one token written."""


class Offers:
    """Looks up offers; each is kept for a second, since a local model's price follows its throughput.

    Args:
        config: the router's file.
        price_of: returns a target's price now; None when it has none.
        quality: what `mlaas bench-models` measured.
    """

    def __init__(
        self, config: RouterConfig, *, price_of: Callable[[Target], PerToken | None], quality: Quality | None = None
    ) -> None:
        self._config = config
        self._price_of = price_of
        self._quality = quality or {}
        self._kept: dict[Target, tuple[float, Offer]] = {}

    def __call__(self, target: Target) -> Offer:
        """Return what a target of an alias is."""
        now_s = time.monotonic()
        kept = self._kept.get(target)
        if kept is not None and now_s - kept[0] < _PRICE_S:
            return kept[1]
        offer = self._look_up(target)
        self._kept[target] = (now_s, offer)
        return offer

    def _look_up(self, target: Target) -> Offer:
        name = str(target)
        price = self._price_of(target)
        capability = self._config.capabilities.get(name)
        provider = self._config.providers.get(target.provider)
        return Offer(
            is_external=target.provider != LOCAL,
            price=TokenPrice(input_usd=price.input_usd, output_usd=price.output_usd) if price is not None else None,
            context_tokens=(capability.context or 0) if capability else 0,
            max_output_tokens=(capability.max_output or 0) if capability else 0,
            lacks=_lacks(capability) if capability else (),
            quality=dict(self._quality.get(name, {})),
            residency=tuple(sorted(provider.residency)) if provider else (),
        )


def _lacks(capability: CapabilityConfig) -> tuple[str, ...]:
    known = {
        "tools": capability.tools,
        "vision": capability.vision,
        "schema": capability.json_schema,
        "reasoning": capability.reasoning,
    }
    return tuple(feature for feature, can in known.items() if can is False)
