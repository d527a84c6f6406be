"""What the cluster's own models yield: counted with each answer, told to their price every few seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sized

from mlaas.providers.base import Usage
from mlaas.router.money.local_prices import LocalPrices


class Throughput:
    """Tokens of local models since the last `tell`."""

    def __init__(self) -> None:
        self._read: defaultdict[str, int] = defaultdict(int)
        self._written: defaultdict[str, int] = defaultdict(int)

    def count(self, model: str, usage: Usage) -> None:
        """Count what one answer of a local model used."""
        self._read[model] += usage.input_tokens
        self._written[model] += usage.output_tokens

    def tell(self, prices: LocalPrices, *, replicas: Mapping[str, Sized], elapsed_s: float) -> None:
        """Tell the prices what each model has yielded, and begin anew.

        Args:
            prices: takes it.
            replicas: live addresses by model.
            elapsed_s: time since the last call.
        """
        for model, addresses in replicas.items():
            prices.observe(
                model,
                output_tokens_per_s=self._written[model] / elapsed_s,
                input_tokens_per_s=self._read[model] / elapsed_s,
                num_replicas=len(addresses),
            )
        self._read.clear()
        self._written.clear()
