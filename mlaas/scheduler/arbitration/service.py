"""The loop: load of each deployment, wished replicas, leases, Ray Serve."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from mlaas.errors import AdmissionError, MlaasError
from mlaas.scheduler.arbitration.decide import decide_replicas
from mlaas.scheduler.arbitration.plan import plan_shares
from mlaas.scheduler.arbitration.types import (
    DEFAULT_COLD_START_S,
    ReplicaState,
    ShareSnapshot,
    ShareState,
    Wish,
    WishCode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlaas.scheduler.arbitration.ports import Leases, LoadSource, ReplicaLease, Replicas
    from mlaas.scheduler.arbitration.types import Load, Share

PERIOD_S = 0.5
"""Time between two looks: what an SLO break waits at most before somebody is told to yield."""
FAILED_HOLD_S = 60.0
"""How long a replica that has failed is left as it is: its reason can be read, and its like is not started over and
over."""

OBSTACLE_S = 10.0
"""How long a replica of a floor waits before it is asked why, and between two times: an explanation takes a while."""

logger = logging.getLogger(__name__)


class ArbitrationService:
    """One loop for all deployments that share. Its memory is soft: after a restart each hold begins anew."""

    def __init__(
        self, leases: Leases, replicas: Replicas, router: LoadSource, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._leases = leases
        self._replicas = replicas
        self._router = router
        self._clock = clock
        self._wishes: dict[str, Wish] = {}
        self._booting_since_s: dict[str, float] = {}
        self._failed_since_s: dict[str, float] = {}
        self._cold_start_s: dict[str, float] = {}
        self._run: tuple[ReplicaLease, ...] | None = None
        self._refused: dict[str, str] = {}
        self._asked_s: dict[str, float] = {}
        self._obstacles: dict[str, str] = {}

    @property
    def wishes(self) -> Mapping[str, Wish]:
        """The wish of each deployment, with its reason."""
        return dict(self._wishes)

    async def run(self) -> None:
        """Look and act until cancelled."""
        try:
            while True:
                try:
                    await self.tick()
                except MlaasError as error:
                    logger.warning("%s: %s", error.code, error)
                except Exception:  # outermost loop of the service: serving keeps what it has
                    logger.exception("arbitration failed, trying again")
                await asyncio.sleep(PERIOD_S)
        finally:
            await self._leases.close()
            await self._router.close()

    async def tick(self) -> None:
        """Look once and act.

        Raises:
            PlatformError: scheduler, store or Ray Serve do not answer; what was not done is done by the next tick.
        """
        shares = await self._replicas.shares()
        leases = await self._leases.list()
        if not shares and not leases:
            return
        present = await self._replicas.present()
        loads = await self._router.loads()
        self._measure_starts(leases, present)
        self._wish(shares, leases, present, loads)
        counts = {name: wish.num_replicas for name, wish in self._wishes.items()}
        plan = plan_shares(shares, counts, leases, present, broken=self._find_broken(leases, present))
        await self._submit(plan.submit)
        if plan.run != self._run or not {lease.workload_id for lease in plan.run} <= present.keys():
            await self._replicas.put(plan.run)
            self._run = plan.run
        for lease in plan.give_back:
            await self._leases.give_back(lease)
        await self._find_obstacles(leases)
        await self._replicas.tell({**self._blocked(leases), **self._refused})

    async def _submit(self, wanted: Sequence[tuple[Share, bool]]) -> None:
        """Ask for machines; what is refused is said once, and asked for again by the next tick."""
        refused = {}
        for share, is_floor in wanted:
            try:
                await self._leases.submit(share, is_floor=is_floor)
            except AdmissionError as error:
                if is_floor:
                    refused[share.name] = error.message
                if self._refused.get(share.name) != error.message:
                    logger.warning("%s: no machine for a replica of %s: %s", error.code, share.name, error)
        self._refused = refused

    async def _find_obstacles(self, leases: Sequence[ReplicaLease]) -> None:
        """Learn what the floors' replicas that have waited for a while wait for."""
        now_s = self._clock()
        waiting = {each.workload_id: each for each in leases if each.is_floor and each.node is None}
        self._asked_s = {each: self._asked_s.get(each, now_s) for each in waiting}
        for workload_id, lease in waiting.items():
            if now_s - self._asked_s[workload_id] < OBSTACLE_S:
                continue
            self._asked_s[workload_id] = now_s
            obstacle = await self._leases.obstacle(lease)
            if obstacle is None:
                self._obstacles.pop(workload_id, None)
            else:
                self._obstacles[workload_id] = obstacle
        self._obstacles = {each: text for each, text in self._obstacles.items() if each in waiting}

    def _blocked(self, leases: Sequence[ReplicaLease]) -> dict[str, str]:
        return {
            each.deployment: self._obstacles[each.workload_id] for each in leases if each.workload_id in self._obstacles
        }

    def _wish(
        self,
        shares: Mapping[str, Share],
        leases: Sequence[ReplicaLease],
        present: Mapping[str, ReplicaState],
        loads: Mapping[str, Load],
    ) -> None:
        states = []
        for name, share in shares.items():
            own = [lease for lease in leases if lease.deployment == name]
            num_ready = sum(present.get(lease.workload_id) is ReplicaState.READY for lease in own)
            load = loads.get(name)
            states.append(
                ShareState(
                    share=share,
                    load=None if load is None else replace(load, num_ready=num_ready),
                    last=self._wishes.get(name) or _found(name, own),
                    cold_start_s=self._cold_start_s.get(name, DEFAULT_COLD_START_S),
                )
            )
        found = {
            wish.name: wish for wish in decide_replicas(ShareSnapshot(now_s=self._clock(), deployments=tuple(states)))
        }
        for name, wish in found.items():
            before = self._wishes.get(name)
            if before is None or before.num_replicas != wish.num_replicas:
                was = "new" if before is None else str(before.num_replicas)
                logger.info("%s: %s -> %d replicas (%s): %s", name, was, wish.num_replicas, wish.code, wish.reason)
        self._wishes = found

    def _find_broken(self, leases: Sequence[ReplicaLease], present: Mapping[str, ReplicaState]) -> set[str]:
        """Return the replicas that failed long enough ago to be replaced."""
        now_s, known = self._clock(), self._failed_since_s
        self._failed_since_s = {
            lease.workload_id: known.get(lease.workload_id, now_s)
            for lease in leases
            if (state := present.get(lease.workload_id)) is ReplicaState.FAILED
            or (lease.workload_id in known and state is not ReplicaState.READY)
        }
        return {each for each, since_s in self._failed_since_s.items() if now_s - since_s >= FAILED_HOLD_S}

    def _measure_starts(self, leases: Sequence[ReplicaLease], present: Mapping[str, ReplicaState]) -> None:
        """Learn how long replicas take from their machine to their first answer."""
        now_s = self._clock()
        booting = {}
        for lease in leases:
            if lease.node is not None and present.get(lease.workload_id) is not ReplicaState.READY:
                booting[lease.workload_id] = self._booting_since_s.get(lease.workload_id, now_s)
            elif lease.workload_id in self._booting_since_s:
                self._cold_start_s[lease.deployment] = now_s - self._booting_since_s[lease.workload_id]
        self._booting_since_s = booting


def _found(name: str, leases: Sequence[ReplicaLease]) -> Wish | None:
    """Return the wish that an earlier loop left behind, so that a restart drops no replica."""
    if not leases:
        return None
    return Wish(name=name, num_replicas=len(leases), code=WishCode.STEADY, reason="found at the start")
