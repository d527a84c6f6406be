"""What each target is: configuration, price list and quality table, put together for decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from mlaas.providers.capabilities import Capabilities
from mlaas.providers.vllm import LOCAL
from mlaas.router.config import RouterConfig
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


class Abilities(Protocol):
    """What a model can do, by target."""

    def __call__(self, target: Target) -> Capabilities:
        """Return what a target can do."""


class Offers:
    """Looks up offers; each is kept for a second, since a local model's price follows its throughput.

    Args:
        config: the router's file.
        price_of: returns a target's price now; None when it has none.
        abilities: what targets can do.
        quality: what `mlaas bench-models` measured.
    """

    def __init__(
        self,
        config: RouterConfig,
        *,
        price_of: Callable[[Target], PerToken | None],
        abilities: Abilities,
        quality: Quality | None = None,
    ) -> None:
        self._config = config
        self._price_of = price_of
        self._abilities = abilities
        self._quality = quality or {}
        self._kept: dict[Target, tuple[float, Offer]] = {}

    def __call__(self, target: Target) -> Offer:
        """Return what a target is; asked for the targets of aliases, of which there are few."""
        now_s = time.monotonic()
        kept = self._kept.get(target)
        if kept is not None and now_s - kept[0] < _PRICE_S:
            return kept[1]
        offer = self._look_up(target)
        self._kept[target] = (now_s, offer)
        return offer

    def _look_up(self, target: Target) -> Offer:
        price = self._price_of(target)
        can = self._abilities(target)
        provider = self._config.providers.get(target.provider)
        return Offer(
            is_external=target.provider != LOCAL,
            price=TokenPrice(input_usd=price.input_usd, output_usd=price.output_usd) if price is not None else None,
            context_tokens=can.context_tokens,
            max_output_tokens=can.max_output_tokens,
            lacks=tuple(sorted(can.lacks)),
            quality=dict(self._quality.get(str(target), {})),
            residency=tuple(sorted(provider.residency)) if provider else (),
        )
