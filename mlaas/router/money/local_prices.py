"""What the tokens of the cluster's own models cost: the machine's hour, spread over the tokens that it yields.

A machine that costs H dollars an hour and yields w weighted tokens a second gives each weighted token the price
H / (3600 w). An output token weighs 1, an input token 1/5, one from the prefix cache 1/50: the ratios of vendors' list
prices (Source: Anthropic's in genai-prices, 1 : 5 : 0.1 for input, output, cache read). So, at the rate that was
measured, an hour's requests together cost the hour's machine: local and vendor tokens compare like with like.

An idle replica's tokens would cost without end, and `cheapest` would then keep it idle. So the rate that counts is
never less than a quarter of the best one measured, nor than 100 weighted tokens a second, which is also what a model
that was never measured is taken at. Both are assumptions, on the dear side for any machine with a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from mlaas.router.money.rates import Card, Rates, to_pico_usd

INPUT_WEIGHT = 0.2
"""An input token's work, against an output token's."""
CACHED_WEIGHT = 0.02
"""The same of an input token whose keys and values are in the prefix cache."""
IDLE_SHARE = 0.25
"""Least utilisation that the price assumes, against the best throughput measured."""
MIN_TOKENS_PER_S = 100.0
"""Least throughput that the price assumes, in weighted tokens a second and machine."""

_SMOOTHING = 0.2
_SECONDS_PER_HOUR = 3600


def local_price(machine_hour_usd: Decimal, *, tokens_per_s: float) -> Card:
    """Return the prices of a model on a machine.

    Args:
        machine_hour_usd: what an hour of one replica's machine costs.
        tokens_per_s: weighted tokens a second that one replica yields; a lower one than `MIN_TOKENS_PER_S` counts as
            that.
    """
    per_second = to_pico_usd(machine_hour_usd / _SECONDS_PER_HOUR)
    per_token = per_second / max(tokens_per_s, MIN_TOKENS_PER_S)
    output, read, cached = (round(per_token * weight) for weight in (1.0, INPUT_WEIGHT, CACHED_WEIGHT))
    return Card(
        base=Rates(
            input=read, cache_read=cached, cache_write=read, cache_write_1h=read, output=output, reasoning=output
        )
    )


@dataclass(kw_only=True, slots=True)
class _Throughput:
    now_tokens_per_s: float
    best_tokens_per_s: float


class LocalPrices:
    """Live prices of local models. They outlive a reload of the router's file.

    Args:
        machine_hour_usd: by model; `default` for the others. A model without either has no price.
    """

    def __init__(self, machine_hour_usd: Mapping[str, Decimal]) -> None:
        self._machine_hour_usd = machine_hour_usd
        self._throughput: dict[str, _Throughput] = {}
        self._cards: dict[str, Card] = {}

    def configure(self, machine_hour_usd: Mapping[str, Decimal]) -> None:
        """Take over other costs of machines; what was measured stays."""
        self._machine_hour_usd = machine_hour_usd
        self._cards.clear()

    def card(self, model: str) -> Card | None:
        """Return a model's prices now."""
        card = self._cards.get(model)
        return self._price(model) if card is None else card

    def observe(
        self, model: str, *, output_tokens_per_s: float, input_tokens_per_s: float = 0.0, num_replicas: int = 1
    ) -> None:
        """Take what a model's replicas together yielded of late; smoothed over about five observations.

        Args:
            model: name of the local model.
            output_tokens_per_s: tokens written.
            input_tokens_per_s: tokens read, other than from the prefix cache.
            num_replicas: machines that did it.
        """
        measured = (output_tokens_per_s + INPUT_WEIGHT * input_tokens_per_s) / max(1, num_replicas)
        seen = self._throughput.setdefault(model, _Throughput(now_tokens_per_s=measured, best_tokens_per_s=measured))
        seen.now_tokens_per_s += _SMOOTHING * (measured - seen.now_tokens_per_s)
        seen.best_tokens_per_s = max(seen.best_tokens_per_s, seen.now_tokens_per_s)
        self._cards.pop(model, None)

    def _price(self, model: str) -> Card | None:
        machine_hour_usd = self._machine_hour_usd.get(model, self._machine_hour_usd.get("default"))
        if machine_hour_usd is None:
            return None
        seen = self._throughput.get(model)
        tokens_per_s = max(seen.now_tokens_per_s, IDLE_SHARE * seen.best_tokens_per_s) if seen else MIN_TOKENS_PER_S
        card = self._cards[model] = local_price(machine_hour_usd, tokens_per_s=tokens_per_s)
        return card
