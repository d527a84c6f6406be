"""The loop that keeps the autoscaler's slot up to date."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from mlaas.errors import PlatformError
from mlaas.scheduler.autoscaling.consolidate import decide_consolidation
from mlaas.scheduler.autoscaling.demand import decide_demand
from mlaas.scheduler.types import Decision

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlaas.scheduler.autoscaling.demand import Demands
    from mlaas.scheduler.autoscaling.types import Growth
    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.live.ports import ClusterPort
    from mlaas.scheduler.snapshot import Snapshot

PERIOD_S = 2.0
"""Ray's autoscaler looks every 5 s."""
REPEAT_S = 10.0
"""An unchanged demand is published again after this long: a control store that was restarted has forgotten it, and
nodes that were in use still when it was published last are left then."""

CONSOLIDATE_S = 60.0
"""At most one node is emptied in this time: what moves has to settle before the next look."""

logger = logging.getLogger(__name__)


class Autoscaler:
    """Publishes demand, and empties nodes. It thinks in a thread beside the event loop that owns the ledger.

    Args:
        cluster: Whose autoscaler is asked.
        policy: The order of what waits.
        load_snapshot: Returns a copy of the world as it is now; None while nobody knows it, and the demand stays.
        load_growth: Returns how far the cluster may grow now; without node types nothing is published.
        book: Carries out a decision: the moves that empty a node.
    """

    def __init__(
        self,
        cluster: ClusterPort,
        policy: SchedulingPolicy,
        *,
        load_snapshot: Callable[[], Snapshot | None],
        load_growth: Callable[[], Growth],
        book: Callable[[Decision], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._policy = policy
        self._load_snapshot = load_snapshot
        self._load_growth = load_growth
        self._book = book
        self._clock = clock
        self._consolidated_s = clock()
        self._published_s = float("-inf")
        self.last: Demands | None = None
        """What was published last."""

    async def run(self) -> None:
        """Publish for ever."""
        while True:
            try:
                await self.tick()
            except PlatformError as error:
                logger.warning("%s: the autoscaler is not asked for nodes: %s", error.code, error)
            except Exception:  # outermost loop of the service: the last demand stands
                logger.exception("autoscaling failed, trying again")
            await asyncio.sleep(PERIOD_S)

    async def tick(self) -> None:
        """Decide, and publish what has changed.

        Raises:
            PlatformError: the cluster does not answer.
        """
        growth = self._load_growth()
        if not (growth.node_types or self.last):
            return
        self._consolidate(growth)
        snapshot = self._load_snapshot()
        if snapshot is None:
            return
        found = await asyncio.to_thread(decide_demand, snapshot, self._policy, growth)
        now_s = self._clock()
        if self.last is not None and found.demand == self.last.demand and now_s - self._published_s < REPEAT_S:
            return
        await self._cluster.publish_demand(found.demand)
        if self.last is None or found.new_nodes != self.last.new_nodes:
            asked = ", ".join(f"{count} x {name}" for name, count in found.new_nodes) or "no new nodes"
            logger.info("asked for: %s; %.2f USD an hour then", asked, found.spend_usd_per_hour)
        self.last, self._published_s = found, now_s

    def _consolidate(self, growth: Growth) -> None:
        now_s = self._clock()
        if now_s - self._consolidated_s < CONSOLIDATE_S or (snapshot := self._load_snapshot()) is None:
            return
        self._consolidated_s = now_s
        if (found := decide_consolidation(snapshot, growth)) is not None:
            logger.info("%s moves from node %s: %s", len(found.moves), found.node, found.reason)
            self._book(Decision(found.moves))
