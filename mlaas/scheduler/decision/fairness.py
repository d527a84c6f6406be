"""Dominant-resource fairness with decaying usage.

A queue's usage is the dominant share that its gangs hold, averaged over the past with an exponential half-life: who
has had little lately goes first, and old sins are forgotten.

Source: Ghodsi et al., "Dominant Resource Fairness", NSDI 2011; the half-life is that of Slurm's fair-share factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlaas.scheduler.cluster import Bools, Ints
    from mlaas.scheduler.decision.quota import QueueTree
    from mlaas.scheduler.estimates import Floats

HALF_LIFE_S = 86_400.0
"""Usage of a day ago counts half."""


def decayed(average: Floats, held: Floats, *, elapsed_s: float, half_life_s: float = HALF_LIFE_S) -> Floats:
    """Return each queue's average dominant share after it has held `held` for `elapsed_s` more seconds."""
    keep = 0.5 ** (elapsed_s / half_life_s)
    result: Floats = average * keep + held * (1.0 - keep)
    return result


def held_shares(queue: Ints, share: Floats, *, num_queues: int) -> Floats:
    """Return the dominant share that each queue's running gangs hold now."""
    return np.bincount(queue, weights=share, minlength=num_queues).astype(np.float64)


def fair_shares(tree: QueueTree, active: Bools) -> Floats:
    """Return the part of the cluster that each queue is due: its weight among its active siblings, down from the root.

    Args:
        tree: The queues.
        active: Queues that have work; those without leave their part to the others.
    """
    parent = tree.parents
    busy = active.copy()
    for level in reversed(tree.levels[1:]):
        busy[parent[level[busy[level]]]] = True
    weights = np.where(busy, tree.weight, 0.0)
    total = np.bincount(parent + 1, weights=weights, minlength=len(weights) + 1)
    shares = weights / np.maximum(total[parent + 1], 1e-12)
    for level in tree.levels[1:]:
        shares[level] *= shares[parent[level]]
    return shares


def boost(average: Floats, due: Floats, *, bound: float) -> Floats:
    """Return how much sooner each queue's work should go, as a log factor within plus or minus log `bound`.

    It is the square root of what the queue is due over what it has had: a soft pull towards equal shares that never
    outweighs a difference in urgency of more than `bound` squared.
    """
    ratio = (due + 1e-3) / (average + 1e-3)
    pull: Floats = (0.5 * np.log(ratio)).clip(-np.log(bound), np.log(bound))
    return pull


def virtual_start(queue: Ints, share: Floats, sequence: Ints, average: Floats, weight: Floats) -> Floats:
    """Return when each waiting workload's turn comes in fair time.

    That is its queue's use and what waits before it there, over the queue's weight.

    Source: start-time fair queueing, Goyal et al., SIGCOMM 1996.
    """
    order = np.lexsort((sequence, queue))
    ahead = np.cumsum(share[order]) - share[order]
    groups = queue[order]
    first = np.concatenate([[True], groups[1:] != groups[:-1]])
    base = np.maximum.accumulate(np.where(first, ahead, 0.0))
    start = np.empty(len(queue))
    start[order] = (average[groups] + ahead - base) / weight[groups]
    return start
