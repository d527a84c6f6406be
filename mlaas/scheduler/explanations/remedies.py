"""What would start a waiting workload now. Each remedy is tried: the decision on the world so changed must place it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.placement import most_workers
from mlaas.scheduler.decision.preemption import Claim, make_room, preference
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import Place
from mlaas.scheduler.wording import amount, count, duration, listed, magnitude

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlaas.scheduler.decision.ordering import SchedulingPolicy
    from mlaas.scheduler.estimates import Belief
    from mlaas.scheduler.requests.queues import PriorityClass
    from mlaas.scheduler.snapshot import Snapshot
    from mlaas.scheduler.tables import Entry
    from mlaas.scheduler.types import Gang, Node, Workload

MOST_TRIES = 24
"""Changed worlds that are decided on for one question."""
FEWEST_TRIES = 6
MOST_ROWS = 100_000
"""Waiting and running rows that these decisions look at; many rows leave fewer tries, but `FEWEST_TRIES`."""
MOST_SIZES = 3
"""Smaller sizes that are tried of each kind, the largest first."""
MOST_NEW_NODES = 64


class RemedyKind(StrEnum):
    """What is changed."""

    WORKERS = "fewer-workers"
    WORKER = "smaller-workers"
    QUEUE = "other-queue"
    PRIORITY = "higher-priority"
    YIELD = "others-yield"
    NODES = "more-nodes"


@dataclass(frozen=True, slots=True)
class Choices:
    """What the tenant may ask for instead."""

    queues: tuple[str, ...] | None = None
    """None: any queue that takes workloads."""
    classes: tuple[PriorityClass, ...] = ()
    """Priority classes."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One way for it to start now."""

    kind: RemedyKind
    text: str
    workload: Workload | None = None
    """Submitted in its place; None: it stays as it is."""
    belief: Belief | None = None
    """How long that is believed to run."""
    gone: tuple[str, ...] = ()
    """Gangs that give back what they hold, and do not come back for it."""
    nodes: tuple[Node, ...] = ()
    """Nodes that are added."""
    yielding: tuple[str, ...] = ()
    """Gangs that the decision makes shrink or yield for it."""
    lost_gpu_s: float = 0.0
    """GPU time that gangs that yield or give back lose: a restart each, or all that they have run if they keep no
    checkpoint for it."""


def remedies_for(
    snapshot: Snapshot, policy: SchedulingPolicy, workload_id: str, *, choices: Choices
) -> tuple[Remedy, ...]:
    """Return what would start a waiting workload now, one remedy of each kind at most.

    Args:
        snapshot: The world.
        policy: The order that decisions follow.
        workload_id: Who waits.
        choices: What the tenant may ask for instead.
    """
    entry = snapshot.pending.entry(snapshot.pending.row_of[workload_id])
    found: dict[RemedyKind, Remedy] = {}
    tries = min(MOST_TRIES, max(FEWEST_TRIES, MOST_ROWS // (len(snapshot.pending) + len(snapshot.running))))
    for remedy in _candidates(snapshot, entry, choices):
        if remedy.kind in found:
            continue
        if not tries:
            break
        tries -= 1
        place = _placed(snapshot, policy, entry, remedy)
        if place is not None:
            found[remedy.kind] = _with_cost(snapshot, remedy, place.after)
    return tuple(found[kind] for kind in RemedyKind if kind in found)


def changed(snapshot: Snapshot, entry: Entry, remedy: Remedy) -> Ledger:
    """Return a world of its own in which a remedy has been applied."""
    ledger = Ledger.of(snapshot)
    if remedy.nodes:
        ledger.set_nodes((*ledger.nodes, *remedy.nodes))
    for workload_id in remedy.gone:
        ledger.remove(workload_id)
    if remedy.workload is not None:
        ledger.remove(entry.workload.id)
        ledger.submit(remedy.workload, belief=remedy.belief)
    return ledger


def _placed(snapshot: Snapshot, policy: SchedulingPolicy, entry: Entry, remedy: Remedy) -> Place | None:
    decision = decide(changed(snapshot, entry, remedy).snapshot(), policy)
    for action in decision.actions:
        if isinstance(action, Place) and action.workload_id == entry.workload.id:
            return action
    return None


def _instead(kind: RemedyKind, text: str, entry: Entry, workload: Workload) -> Remedy:
    """Return a remedy that is another submission. Half the GPUs are believed to take twice as long."""
    slower = max(_size(entry.workload.gang) / max(_size(workload.gang), 1e-9), 1.0)
    belief = replace(entry.belief, log_median=entry.belief.log_median + math.log(slower))
    if workload.estimate_s is not None:
        workload = replace(workload, estimate_s=workload.estimate_s * slower)
    if slower > 1.0:
        text += f" (about {slower:.3g} times as long)"
    return Remedy(kind, text, workload, belief)


def _size(gang: Gang) -> float:
    return gang.max_workers * (gang.worker.gpus or gang.worker.cpus or 1.0)


def _candidates(snapshot: Snapshot, entry: Entry, choices: Choices) -> Iterator[Remedy]:
    """Yield what is worth a try, the least change first within each kind."""
    yield from _other_queues(snapshot, entry, choices)
    yield from _fewer_workers(snapshot, entry)
    yield from _smaller_workers(entry)
    yield from _priorities(entry, choices)
    yield from _yielders(snapshot, entry)
    yield from _more_nodes(snapshot, entry)


def _fewer_workers(snapshot: Snapshot, entry: Entry) -> Iterator[Remedy]:
    gang = entry.workload.gang
    compiled = snapshot.cluster.gangs[snapshot.cluster.compile(gang)]
    most = min(most_workers(snapshot.cluster.view(), compiled), gang.min_workers - 1)
    sizes = dict.fromkeys(size for size in (most, most // 2, 1) if size > 0)
    for size in list(sizes)[:MOST_SIZES]:
        smaller = replace(gang, min_workers=size, max_workers=size)
        workload = replace(entry.workload, gang=smaller)
        text = f"ask for {count(size, 'worker')} instead of {gang.min_workers}"
        yield _instead(RemedyKind.WORKERS, text, entry, workload)


def _smaller_workers(entry: Entry) -> Iterator[Remedy]:
    """Yield the same GPUs in smaller workers, then fewer GPUs in as many workers."""
    gang = entry.workload.gang
    gpus = int(gang.worker.gpus)
    halves = [gpus >> step for step in range(1, gpus.bit_length())][:MOST_SIZES]
    for half in halves:
        part = replace(
            gang.worker,
            gpus=float(half),
            cpus=gang.worker.cpus * half / gpus,
            memory_bytes=gang.worker.memory_bytes * half // gpus,
        )
        if gpus % half == 0:
            split = gpus // half
            spread = replace(
                gang, worker=part, min_workers=gang.min_workers * split, max_workers=gang.max_workers * split
            )
            text = (
                f"ask for {spread.min_workers} workers of {amount('GPU', half)} instead of {gang.min_workers} of {gpus}"
            )
            yield _instead(RemedyKind.WORKER, text, entry, replace(entry.workload, gang=spread))
        workload = replace(entry.workload, gang=replace(gang, worker=part))
        text = f"ask for {amount('GPU', half)} for each worker instead of {gpus}"
        yield _instead(RemedyKind.WORKER, text, entry, workload)


def _other_queues(snapshot: Snapshot, entry: Entry, choices: Choices) -> Iterator[Remedy]:
    """Yield queues with room in their quota, the one with most first."""
    tree, gang = snapshot.queues, entry.workload.gang
    compiled = snapshot.cluster.gangs[snapshot.cluster.compile(gang)]
    need = gang.min_workers * compiled.demand
    usage = snapshot.usage
    parents = set(tree.parent)
    rooms = []
    for queue, row in tree.row_of.items():
        is_open = row not in parents and (choices.queues is None or queue in choices.queues)
        if is_open and queue != entry.workload.queue and usage.fits(row, need):
            rooms.append((min(usage.available(row, int(column)) for column in np.flatnonzero(need)), queue))
    for _, queue in sorted(rooms, reverse=True)[:MOST_SIZES]:
        text = f"submit it to queue {queue}, which has room"
        yield _instead(RemedyKind.QUEUE, text, entry, replace(entry.workload, queue=queue))


def _priorities(entry: Entry, choices: Choices) -> Iterator[Remedy]:
    higher = [each for each in choices.classes if each.number > entry.workload.priority]
    for each in sorted(higher, key=lambda higher: (higher.number, higher.name))[:MOST_SIZES]:
        text = f"submit it with priority class {each.name} ({each.number} instead of {entry.workload.priority})"
        workload = replace(entry.workload, priority=each.number, preempts=each.preempts)
        yield _instead(RemedyKind.PRIORITY, text, entry, workload)


def _yielders(snapshot: Snapshot, entry: Entry) -> Iterator[Remedy]:
    """Yield the cheapest running gangs whose end would make room: by what they lose, whatever their rank."""
    running, cluster = snapshot.running, snapshot.cluster
    if not len(running):
        return
    gang = cluster.gangs[cluster.compile(entry.workload.gang)]
    workers = entry.workload.gang.min_workers
    needs = np.array(
        [
            cluster.gangs[number].demand * size
            for number, size in zip(running.ints_of("gang").tolist(), running.ints_of("workers").tolist(), strict=True)
        ]
    )
    everyone = np.ones(len(running), dtype=bool)
    lost = np.array([_lost_gpu_s(snapshot, row) for row in range(len(running))])
    claim = Claim(gang, workers, snapshot.queues.row_of[entry.workload.queue], workers * gang.demand, everyone)
    room = make_room(
        claim, cluster.free(), snapshot.usage, running,
        order=preference(running, borrowed=everyone, ranks=lost), needs=needs, min_workers=running.ints_of("workers"),
    )  # fmt: skip
    if room is not None and room.yielding:
        gone = tuple(running.ids[row] for row in room.yielding)
        back: dict[str, float] = {}
        for row in room.yielding:
            resource, value = next(iter(running.workloads[row].gang.worker.amounts().items()))
            back[resource] = back.get(resource, 0.0) + value * int(running.ints_of("workers")[row])
        text = f"{listed(gone)} would have to give back {listed([amount(*each) for each in back.items()])}"
        yield Remedy(RemedyKind.YIELD, text, gone=gone)


def _lost_gpu_s(snapshot: Snapshot, row: int) -> float:
    """GPU seconds that a running gang loses when it has to stop now."""
    running = snapshot.running
    workload = running.workloads[row]
    lost_s = workload.restart_cost_s
    if not workload.preemptible:
        lost_s = float(running.attained_s(snapshot.now_s)[row])
    return lost_s * workload.gang.worker.gpus * int(running.ints_of("workers")[row])


def _more_nodes(snapshot: Snapshot, entry: Entry) -> Iterator[Remedy]:
    """Yield more nodes of each shape that suits, in growing numbers."""
    gang, cluster = entry.workload.gang, snapshot.cluster
    compiled = cluster.gangs[cluster.compile(gang)]
    slots = cluster.empty().slots(compiled)
    nodes_with = Counter(label for node in cluster.nodes for label in node.labels)
    shapes: dict[object, tuple[Node, int]] = {}
    for row in np.flatnonzero(slots):
        node = cluster.nodes[row]
        shared = tuple(label for label in node.labels if nodes_with[label] > 1)
        shapes.setdefault((node.capacity, shared), (node, int(slots[row])))
    for node, held in sorted(shapes.values(), key=lambda shape: -shape[1])[:MOST_SIZES]:
        least = math.ceil(gang.min_workers / held)
        for number in dict.fromkeys((1, least, 2 * least)):
            if number <= MOST_NEW_NODES:
                nodes = tuple(replace(node, name=f"{node.name}+{index}") for index in range(number))
                text = f"{count(number, 'more node')} like {node.name} ({magnitude(node.capacity)})"
                yield Remedy(RemedyKind.NODES, text, nodes=nodes)


def _with_cost(snapshot: Snapshot, remedy: Remedy, after: tuple[str, ...]) -> Remedy:
    """Say who would yield, and what that would cost."""
    stopped = (*remedy.gone, *after)
    if not stopped:
        return remedy
    lost = sum(_lost_gpu_s(snapshot, snapshot.running.row_of[workload_id]) for workload_id in stopped)
    text = remedy.text
    if after:
        text += f"; {listed(after)} would yield for it"
    text += f"; lost: {duration(lost)} of GPU time" if lost else "; nothing is lost"
    return replace(remedy, text=text, yielding=after, lost_gpu_s=lost)
