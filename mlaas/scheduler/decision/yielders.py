"""What runs, as far as it may be asked to yield its place or to move, in one cycle."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.decision.moving import MOST_COST, make_way, may_make_way
from mlaas.scheduler.decision.ordering import borrowed, held_units
from mlaas.scheduler.decision.preemption import Claim, make_room, preference

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import Bools, CompiledGang, Free, Ints
    from mlaas.scheduler.decision.cycle import Cycle
    from mlaas.scheduler.decision.moving import Way
    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.decision.preemption import Room
    from mlaas.scheduler.estimates import Floats
    from mlaas.scheduler.snapshot import Snapshot


URGENT = 1_000
"""Who has this priority or a higher one, as serving has, does not wait for the minimum runtime of who has less."""


class Yielders:
    """What runs, as far as it may be asked to yield."""

    def __init__(self, snapshot: Snapshot, policy: SchedulingPolicy, margin: float) -> None:
        self.snapshot = snapshot
        self.policy = policy
        self.margin = margin
        self.askable: Bools = ~policy.protected(snapshot)
        running = snapshot.running
        self.askable_by_urgent: Bools = self.askable | (
            (running.ints_of("preemptible") != 0) & (running.ints_of("priority") < URGENT)
        )
        has_urgent = bool((snapshot.pending.ints_of("priority") >= URGENT).any())
        self.asked = self.askable_by_urgent if has_urgent else self.askable
        self.min_workers = snapshot.running.ints_of("min_workers")

    @cached_property
    def ranks(self) -> Floats:
        """What each row ranks."""
        return self.policy.running_ranks(self.snapshot)

    @cached_property
    def least(self) -> Floats:
        """What no row ranks below. Most cycles find nobody to ask by these, and never need the ranks."""
        return self.policy.least_running_ranks(self.snapshot) if self.snapshot.queues.is_limited else self.ranks

    @cached_property
    def floor(self) -> float:
        """Who ranks above this outranks some row."""
        return self._floor(self.ranks)

    @cached_property
    def _least_floor(self) -> float:
        return self._floor(self.least)

    def _floor(self, ranks: Floats) -> float:
        return float(ranks[self.asked].min(initial=np.inf)) + self.margin

    @property
    def _knows_ranks(self) -> bool:
        return "ranks" in vars(self)

    def may_hear(self, rank: float) -> bool:
        """Whether some row may be outranked by this: cheap, and never wrong when it says no."""
        return rank > (self.floor if self._knows_ranks else self._least_floor)

    @cached_property
    def borrowed(self) -> Bools:
        """Gangs on capacity that their queue borrows."""
        return borrowed(self.snapshot, self.ranks)

    @cached_property
    def order(self) -> Ints:
        """Rows in the order in which they are asked."""
        return preference(self.snapshot.running, borrowed=self.borrowed, ranks=self.ranks)

    def room_for(self, cycle: Cycle, row: int, gang: CompiledGang, workers: int) -> Room | None:
        """Return the room that running gangs can make for a waiting workload."""
        if not self._knows_ranks:
            everyone = np.ones(len(self.least), dtype=bool)
            eligible = self._eligible(cycle, row, gang, workers, ranks=self.least, borrowed=everyone)
            if not self._may_be_enough(cycle.free, gang, workers, eligible):
                return None
        eligible = self._eligible(cycle, row, gang, workers, ranks=self.ranks, borrowed=self.borrowed)
        if not self._may_be_enough(cycle.free, gang, workers, eligible):
            return None
        if cycle.head is not None and cycle.reservation is None:
            cycle.reserve_for_head()
            eligible = self._eligible(cycle, row, gang, workers, ranks=self.ranks, borrowed=self.borrowed)
        claim = Claim(gang, workers, int(cycle.queue[row]), workers * gang.demand, eligible)
        return make_room(
            claim, cycle.cells_for(row), cycle.usage if cycle.is_limited else None, cycle.snapshot.running,
            order=self.order, needs=self.needs, min_workers=self.min_workers,
        )  # fmt: skip

    def _may_be_enough(self, free: Free, gang: CompiledGang, workers: int, eligible: Bools) -> bool:
        """Whether these rows hold enough devices: cheap, and never wrong when it says no."""
        if not eligible.any():
            return False
        if not gang.devices:
            return True
        row, node, devices = self.devices
        given = np.bincount(node, weights=devices * eligible[row], minlength=len(free.whole)).astype(np.int64)
        return int(((given + free.whole)[gang.mask] // gang.devices).sum()) >= workers

    @cached_property
    def devices(self) -> tuple[Ints, Ints, Ints]:
        """(running row, node, devices of which it holds however small a part there)."""
        row, node, workers = self.snapshot.running.parts()
        per_worker = self.snapshot.cluster.devices[self.snapshot.running.ints_of("gang")]
        return row, node, per_worker[row] * workers

    def way_for(self, cycle: Cycle, row: int, gang: CompiledGang, workers: int) -> Way | None:
        """Return the moves to other nodes that let a waiting workload start on idle capacity."""
        if not may_make_way(cycle.free, gang, workers=workers):
            return None
        cycle.reserve_for_head()
        free = cycle.cells_for(row)
        if not may_make_way(free, gang, workers=workers):
            return None
        running, pending = self.snapshot.running, self.snapshot.pending
        movable = self.askable & (running.ints_of("priority") <= pending.ints_of("priority")[row])
        cost = running.floats_of("restart_s") * running.floats_of("share")
        if cycle.gone:
            movable[list(cycle.gone)] = False
        if cycle.outlasts(row) and cycle.reservation is not None:
            movable &= cycle.ends_s > cycle.reservation.start_s
        return make_way(
            free, gang, running, workers=workers, gangs=self.snapshot.cluster.gangs,
            movable=movable, cost=cost,
            budget=MOST_COST * float(cycle.runtime_s[row] * pending.floats_of("share")[row]),
        )  # fmt: skip

    def _eligible(
        self, cycle: Cycle, row: int, gang: CompiledGang, workers: int, *, ranks: Floats, borrowed: Bools
    ) -> Bools:
        """Rows that a waiting workload may ask, if they rank like this and lie on capacity that is borrowed or not."""
        running, pending = cycle.snapshot.running, cycle.snapshot.pending
        below = ranks + self.margin < cycle.ranks[row]
        priority = int(pending.ints_of("priority")[row])
        askable = self.askable_by_urgent if priority >= URGENT else self.askable
        eligible = askable & (running.ints_of("priority") <= priority)
        if cycle.is_limited:
            queue = int(cycle.queue[row])
            entitled = cycle.usage.is_entitled(queue, workers * gang.demand)
            mine = running.ints_of("queue") == queue
            eligible &= (mine & below) | (borrowed & ~mine & (below | entitled))
        else:
            eligible &= below
        if cycle.gone:
            eligible[list(cycle.gone)] = False
        if cycle.reservation is not None and cycle.outlasts(row):
            eligible &= cycle.ends_s > cycle.reservation.start_s
        return eligible

    @cached_property
    def needs(self) -> Ints:
        """Units of the resources that quotas know, for each running row."""
        return held_units(self.snapshot)
