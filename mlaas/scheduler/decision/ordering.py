"""The scheduling policies: who goes first, and who may be asked to yield for whom.

A policy ranks what waits and what runs on one scale, higher first. Everything else (quota, fit, reservation, choice
of victims) is the same for all of them, so a comparison compares orders, not implementations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mlaas.errors import ConfigError
from mlaas.scheduler.decision.fairness import boost, virtual_start
from mlaas.scheduler.estimates import exceeded, outlook, service_rate
from mlaas.scheduler.tables import is_protected

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import Bools, Ints
    from mlaas.scheduler.estimates import Floats, Outlook
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.scheduler.tables import PendingTable, RunningTable

_LEAST_SHARE = 1e-9
AGED_RANK = 1e9
"""Ranks from here on are of workloads that have aged."""


class Blocked(Enum):
    """What happens behind a workload that cannot start."""

    STOP = "stop"
    """Nothing passes it."""
    RESERVE = "reserve"
    """It gets a reservation; what does not delay that may pass."""


class SchedulingPolicy(Protocol):
    """An order of workloads."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def blocked(self) -> Blocked:
        """What happens behind a workload that cannot start."""

    @property
    def margin(self) -> float | None:
        """How far a waiting workload must rank above a running one to make it yield; None = it never does."""

    @property
    def moves(self) -> bool:
        """Whether running gangs are moved to other nodes when that lets a waiting one start on idle capacity."""

    def pending_ranks(self, snapshot: Snapshot) -> Floats:
        """Return the rank of each waiting row, higher first."""

    def pending_parts(self, snapshot: Snapshot) -> dict[str, Floats]:
        """Return what the ranks of waiting rows are made of, what weighs most first."""

    def running_ranks(self, snapshot: Snapshot) -> Floats:
        """Return the rank of each running row on the same scale. Only asked when someone might have to yield."""

    def least_running_ranks(self, snapshot: Snapshot) -> Floats:
        """Return what no running row ranks below; worth more than the ranks only where it costs less."""

    def protected(self, snapshot: Snapshot) -> Bools:
        """Return the running gangs that are left in peace now."""

    def pending_runtime_s(self, snapshot: Snapshot) -> Floats:
        """Return how long each waiting workload is expected to run once placed."""

    def running_left_s(self, snapshot: Snapshot) -> Floats:
        """Return how long each running gang is expected to go on."""


class _Stated(ABC):
    """Parts shared by policies that take stated estimates as they are, and double those that were exceeded."""

    blocked = Blocked.RESERVE
    margin: float | None = None
    moves = False

    @abstractmethod
    def pending_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what waits."""

    def pending_parts(self, snapshot: Snapshot) -> dict[str, Floats]:
        """Return what the ranks of waiting rows are made of, what weighs most first."""
        return {"order": self.pending_ranks(snapshot)}

    def running_ranks(self, snapshot: Snapshot) -> Floats:
        """Return equal ranks: nobody yields."""
        return np.zeros(len(snapshot.running))

    def least_running_ranks(self, snapshot: Snapshot) -> Floats:
        """Return the ranks."""
        return self.running_ranks(snapshot)

    def protected(self, snapshot: Snapshot) -> Bools:
        """Return the running gangs that are left in peace now."""
        return is_protected(snapshot.running, snapshot.now_s)

    def pending_runtime_s(self, snapshot: Snapshot) -> Floats:
        """Return how long each waiting workload is expected to run once placed."""
        table = snapshot.pending
        attained = table.floats_of("attained_s")
        left: Floats = exceeded(table.floats_of("estimate_s"), attained) - attained + table.floats_of("restart_s")
        return left

    def running_left_s(self, snapshot: Snapshot) -> Floats:
        """Return how long each running gang is expected to go on."""
        table = snapshot.running
        attained = table.attained_s(snapshot.now_s)
        return _wall_s(exceeded(table.floats_of("estimate_s"), attained) - attained, table, snapshot.now_s)


class Fifo(_Stated):
    """First come, first served; nothing passes the first."""

    name = "fifo"
    blocked = Blocked.STOP

    def pending_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what waits."""
        return -snapshot.pending.ints_of("sequence").astype(np.float64)


class Easy(_Stated):
    """First come, first served, with EASY backfill.

    Source: Mu'alem and Feitelson, "Utilization, predictability, workloads, and user runtime estimates", IEEE TPDS 2001.
    """

    name = "easy"

    def pending_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what waits."""
        return -snapshot.pending.ints_of("sequence").astype(np.float64)


class ShortestJobFirst(_Stated):
    """Shortest stated estimate first, never interrupted; backfill behind a reservation, so that wide gangs start."""

    name = "sjf"

    def pending_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what waits."""
        ranks: Floats = -snapshot.pending.floats_of("estimate_s")
        return ranks


class LeastAttainedService(_Stated):
    """Three queues by GPU time received, first come first served in each, preemptive. It needs no estimates to rank.

    Source: Gu et al., "Tiresias", NSDI 2019 (discretised two-dimensional least attained service).
    """

    name = "las"
    margin = 0.5
    thresholds_gpu_s = (3_600.0, 36_000.0)

    def pending_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what waits."""
        return self._ranks(snapshot.pending, snapshot.pending.floats_of("attained_s"), snapshot)

    def running_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what runs."""
        return self._ranks(snapshot.running, snapshot.running.attained_s(snapshot.now_s), snapshot)

    def _ranks(self, table: PendingTable | RunningTable, attained_s: Floats, snapshot: Snapshot) -> Floats:
        service = attained_s * table.floats_of("share") * _gpus(snapshot)
        level = np.searchsorted(np.array(self.thresholds_gpu_s), service, side="right")
        age = table.ints_of("sequence") / 2**40
        ranks: Floats = -level - 0.25 * age
        return ranks


class FairShare(_Stated):
    """Least served queue first (dominant shares, decaying usage), first come first served in each, uninterrupted."""

    name = "fair"

    def pending_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what waits."""
        table = snapshot.pending
        weight = snapshot.queues.weight
        return -virtual_start(
            table.ints_of("queue"), table.floats_of("share"), table.ints_of("sequence"), snapshot.average_share, weight
        )


class ShortestRemainingService(_Stated):
    """Least remaining service first by stated estimates, preemptive at once.

    With true runtimes and free preemption it is the oracle.
    """

    name = "srsf-oracle"
    margin = 0.0

    def pending_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what waits."""
        return _least_service(self.pending_runtime_s(snapshot), snapshot.pending.floats_of("share"))

    def running_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what runs."""
        return _least_service(self.running_left_s(snapshot), snapshot.running.floats_of("share"))

    def protected(self, snapshot: Snapshot) -> Bools:
        """Return the running gangs that are left in peace now."""
        return snapshot.running.ints_of("preemptible") == 0


class MlaasPolicy:
    """The policy of this scheduler.

    In this order: what has waited past its aging bound, the oldest first; priority; deadlines about to be missed;
    work that its queue is guaranteed; then the rate at which a gang is likely to finish per share of the cluster that
    it takes (`estimates.outlook`), pulled towards queues that have had less than they are due, and towards wide gangs
    that have waited. Whatever of this sets a waiting gang above a running one by more than `margin` lets it make the
    other yield.

    **Width.** A gang that takes much of the cluster starts only once many others have made way together, and least
    service first hardly ever lets that be: something smaller and sooner done comes meanwhile. So its rank grows with
    its wait, counted in parts of what it has left: fully for a gang as wide as the cluster, and not at all up to a
    quarter of it, or up to a half for a single worker, which needs no more than one node.

    **Aging bound.** A workload has aged when it has waited longer than `aging_s` and `aging_stretch` times what it has
    run. It then goes before all that have not. Nothing younger starts on a node that suits it, however short it claims
    to be; nobody borrows in its cohort before it; what may be asked yields to it; and it is preempted by none of them
    until it has run enough to be young again, and at least `aging_turn_s`. So a workload that has not run yet waits at
    most `aging_s`, and after that for what runs at that moment to end, once more for each that aged before it.
    Nothing is promised while the nodes that are there could not hold it even empty, nor of quota that other queues are
    guaranteed and use.
    """

    name = "mlaas"
    blocked = Blocked.RESERVE
    margin: float | None = math.log(1.5)
    moves = True

    aging_s = 30 * 86_400.0
    aging_stretch = 10.0
    aging_turn_s = 86_400.0
    fairness_bound = 2.0
    width_pull = 1.5
    width_part = 0.2
    width_least_s = 600.0
    """A wide gang gains `width_pull` times the log of 1 + its wait over this and `width_part` of what it has left."""

    def pending_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what waits."""
        return self._ranks(snapshot.pending, _standing(snapshot), self._pull(snapshot), snapshot.now_s)

    def pending_parts(self, snapshot: Snapshot) -> dict[str, Floats]:
        """Return what the ranks of waiting rows are made of, what weighs most first."""
        return self._parts(snapshot.pending, _standing(snapshot), self._pull(snapshot), snapshot.now_s)

    def running_ranks(self, snapshot: Snapshot) -> Floats:
        """Rank what runs."""
        table, now_s = snapshot.running, snapshot.now_s
        expected = _outlook(table, now_s)
        left_s = _wall_s(expected.remaining_s, table, now_s)
        turn_s = np.maximum(table.attained_s(now_s) - self.aging_turn_s, 0.0)
        standing = _Standing(expected.rate, left_s, turn_s, ~borrowed(snapshot, expected.rate))
        return self._ranks(table, standing, self._pull(snapshot), now_s)

    def least_running_ranks(self, snapshot: Snapshot) -> Floats:
        """Return the ranks as if nobody had aged, was in a hurry, on what its queue is guaranteed, or wide."""
        table = snapshot.running
        rate = service_rate(table.floats_of("log_median"), table.floats_of("sigma"), _since_s(table, snapshot.now_s))
        ranks = 1e4 * table.ints_of("priority") + _urgency(rate, table) + self._pull(snapshot)[table.ints_of("queue")]
        return np.minimum(ranks, AGED_RANK)

    def _pull(self, snapshot: Snapshot) -> Floats:
        return boost(snapshot.average_share, snapshot.due, bound=self.fairness_bound)

    def protected(self, snapshot: Snapshot) -> Bools:
        """Return the running gangs that are left in peace now."""
        return is_protected(snapshot.running, snapshot.now_s)

    def pending_runtime_s(self, snapshot: Snapshot) -> Floats:
        """Return how long each waiting workload is expected to run once placed."""
        return snapshot.pending.floats_of("remaining_s")

    def running_left_s(self, snapshot: Snapshot) -> Floats:
        """Return how long each running gang is expected to go on."""
        return _wall_s(_outlook(snapshot.running, snapshot.now_s).remaining_s, snapshot.running, snapshot.now_s)

    def _ranks(self, table: PendingTable | RunningTable, standing: _Standing, pull: Floats, now_s: float) -> Floats:
        parts = self._parts(table, standing, pull, now_s)
        aging = parts.pop("aging")
        ranks: Floats = np.where(aging > 0.0, aging, sum(parts.values()))
        return ranks

    def _parts(
        self, table: PendingTable | RunningTable, standing: _Standing, pull: Floats, now_s: float
    ) -> dict[str, Floats]:
        """Return what ranks are made of; who has aged ranks by that alone."""
        slack_s = table.floats_of("deadline_s") - now_s - standing.left_s
        waited_s = table.waits_s(now_s)
        aged = waited_s > self.aging_s + self.aging_stretch * standing.attained_s
        return {
            "aging": np.where(aged, AGED_RANK + waited_s / 86_400.0, 0.0),
            "priority": 1e4 * table.ints_of("priority"),
            "deadline": 2e3 * ((slack_s >= 0.0) & (slack_s < standing.left_s)),
            "guarantee": 1e3 * standing.entitled,
            "estimate": _urgency(standing.rate, table),
            "fair share": pull[table.ints_of("queue")],
            "width": self._width(table, waited_s, standing.left_s),
        }

    def _width(self, table: PendingTable | RunningTable, waited_s: Floats, left_s: Floats) -> Floats:
        """Return how far each gang is pulled forward for its width and its wait."""
        narrow = np.where(table.ints_of("workers") > 1, 0.25, 0.5)
        wide: Floats = np.maximum(table.floats_of("share") - narrow, 0.0) / (1.0 - narrow)
        if wide.any():  # rarely, and a cycle of a small cluster costs less than these logarithms
            stretch = waited_s / (self.width_least_s + self.width_part * left_s)
            wide = self.width_pull * np.minimum(wide, 1.0) * np.log1p(stretch)
        return wide


@dataclass(frozen=True, slots=True)
class _Standing:
    rate: Floats
    left_s: Floats
    attained_s: Floats
    entitled: Bools


def _standing(snapshot: Snapshot) -> _Standing:
    table = snapshot.pending
    return _Standing(
        table.floats_of("rate"),
        table.floats_of("remaining_s"),
        table.floats_of("attained_s"),
        entitled_pending(snapshot),
    )


def _outlook(running: RunningTable, now_s: float) -> Outlook:
    return outlook(running.floats_of("log_median"), running.floats_of("sigma"), _since_s(running, now_s))


def _since_s(running: RunningTable, now_s: float) -> Floats:
    """Return the time run of what each belief is about."""
    since_s: Floats = np.maximum(running.attained_s(now_s) - running.floats_of("believed_from_s"), 0.0)
    return since_s


def _urgency(rate: Floats, table: PendingTable | RunningTable) -> Floats:
    """Return the log of the rate at which each gang is likely to finish, per share of the cluster that it takes."""
    urgency: Floats = np.log(rate / np.maximum(table.floats_of("share"), _LEAST_SHARE))
    return urgency


def borrowed(snapshot: Snapshot, value: Floats) -> Bools:
    """Return which running gangs stand on borrowed capacity: the least valuable ones above their queue's guarantee.

    A queue borrows what it holds above its guarantee of any resource that it has one of; without any it borrows all.
    """
    table, tree = snapshot.running, snapshot.queues
    if not tree.is_limited:
        return np.ones(len(table), dtype=bool)
    queue, gang, workers = table.ints_of("queue"), table.ints_of("gang"), table.ints_of("workers")
    result = ~tree.has_guarantee[queue]
    rows = np.flatnonzero((snapshot.usage.by_leaf > tree.owned).sum(axis=1)[queue])
    order = rows[np.argsort(-value[rows], kind="stable")]
    # Few distinct numbers in a narrow type: numpy sorts those by counting.
    order = order[np.argsort(queue[order].astype(np.min_scalar_type(len(tree.queues))), kind="stable")]
    groups = queue[order]
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    sizes = np.diff(first, append=len(order))
    for column in np.flatnonzero((tree.guarantee > 0).any(axis=0)):
        held = snapshot.cluster.demands[gang[order], column] * workers[order]
        used = np.cumsum(held)
        used -= np.repeat(used[first] - held[first], sizes)
        result[order] |= used > tree.owned[groups, column]
    return result


_ALL: tuple[SchedulingPolicy, ...] = (
    Fifo(),
    Easy(),
    ShortestJobFirst(),
    LeastAttainedService(),
    FairShare(),
    ShortestRemainingService(),
    MlaasPolicy(),
)
POLICIES = {policy.name: policy for policy in _ALL}


def policy_named(name: str) -> SchedulingPolicy:
    """Return a policy by its name.

    Raises:
        ConfigError: there is no such policy.
    """
    if name not in POLICIES:
        raise ConfigError("unknown_policy", f"no scheduling policy {name!r}; there are {', '.join(POLICIES)}")
    return POLICIES[name]


def entitled_pending(snapshot: Snapshot) -> Bools:
    """Waiting workloads that their queue's unused guarantee holds, each taken by itself."""
    table, tree = snapshot.pending, snapshot.queues
    if not tree.is_limited:
        return np.zeros(len(table), dtype=bool)
    usage, gangs = snapshot.usage, snapshot.cluster.gangs
    pair = table.ints_of("queue") * len(gangs) + table.ints_of("gang")
    known = np.zeros(len(tree.queues) * len(gangs), dtype=bool)
    for one in np.flatnonzero(np.bincount(pair)).tolist():
        queue, gang = divmod(one, len(gangs))
        known[one] = usage.is_entitled(queue, gangs[gang].gang.min_workers * gangs[gang].demand)
    return known[pair]


def held_units(snapshot: Snapshot) -> Ints:
    """Return the units that each running gang holds of the resources that quotas know, rows x resources."""
    table = snapshot.running
    units: Ints = snapshot.cluster.demands[table.ints_of("gang")] * table.ints_of("workers")[:, None]
    return units


def _gpus(snapshot: Snapshot) -> float:
    return max(snapshot.cluster.gpu_units, 10_000) / 10_000


def _least_service(left_s: Floats, share: Floats) -> Floats:
    ranks: Floats = -np.log(np.maximum(left_s, 1e-3) * np.maximum(share, _LEAST_SHARE))
    return ranks


def _wall_s(left_s: Floats, table: RunningTable, now_s: float) -> Floats:
    """Seconds by the clock for `left_s` seconds at full size, after any restart under way."""
    wall: Floats = left_s / table.floats_of("speed") + np.maximum(table.floats_of("productive_from_s") - now_s, 0.0)
    return wall
