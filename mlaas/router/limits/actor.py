"""The ledger of limits as Ray runs it: one detached actor for each shard of keys, started anew when it is killed."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray.exceptions import RayError

from mlaas.errors import PlatformError
from mlaas.router.limits.ledger import Ledger
from mlaas.router.limits.types import WINDOW_S, Reply, Report
from mlaas.store.engine import open_store
from mlaas.store.ledger import BudgetLeaseRepository

ACTOR_NAME = "mlaas-ledger"
NAMESPACE = "mlaas"
NUM_SHARDS = 2
"""How many actors share the keys. Fixed while a cluster lives: a key must never have two ledgers."""


class LedgerActor(Ledger):
    """A shard in a process of its own. `connect` runs it as an actor."""

    def __init__(self, shard: int, store_url: str, span_s: float) -> None:
        super().__init__(
            str(shard),
            BudgetLeaseRepository(open_store(store_url)),
            is_successor=ray.get_runtime_context().was_current_actor_reconstructed,
            span_s=span_s,
        )


class LedgerClient:
    """The ledger as a gateway replica calls it; finds an actor again after a failed call.

    Args:
        store_url: where a ledger that has to be started keeps its leases.
    """

    num_shards = NUM_SHARDS

    def __init__(self, store_url: str) -> None:
        self._store_url = store_url
        self._actors: dict[int, Any] = {}

    async def exchange_windows(self, shard: int, report: Report) -> Reply:
        """Exchange with a shard about requests, tokens and concurrency.

        Raises:
            PlatformError: the shard does not answer.
        """
        return await self._call(shard, "exchange_windows", report)

    async def exchange_budgets(self, shard: int, report: Report) -> Reply:
        """Exchange with a shard about money.

        Raises:
            PlatformError: the shard does not answer, or cannot reach the store.
        """
        return await self._call(shard, "exchange_budgets", report)

    async def _call(self, shard: int, method: str, report: Report) -> Reply:
        try:
            if shard not in self._actors:
                self._actors[shard] = await asyncio.to_thread(connect, shard, self._store_url)
            return await getattr(self._actors[shard], method).remote(report)
        # Ray says ValueError when the named actor goes away between being found and being asked for.
        except (RayError, ValueError) as error:
            if isinstance(cause := getattr(error, "cause", None), PlatformError):
                raise cause from error
            self._actors.pop(shard, None)
            raise PlatformError("ledger_unreachable", f"the ledger of limits does not answer: {error!r}") from error


def connect(shard: int, store_url: str, *, span_s: float = WINDOW_S) -> Any:
    """Return a handle of a shard's actor, started by whoever comes first, on the head: there the store is reached.

    Raises:
        RayError: the cluster cannot be reached.
    """
    actor = ray.remote(LedgerActor).options(
        name=f"{ACTOR_NAME}-{shard}",
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        num_cpus=0,
        resources={HEAD_NODE_RESOURCE_NAME: 0.001},
    )
    return actor.remote(shard, store_url, span_s)
