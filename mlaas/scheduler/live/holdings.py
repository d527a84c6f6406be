"""What leases hold on the nodes in fact, while the ledger has what is booked.

The two differ while a gang yields: its cells are booked for another one already, and still held by it. A placement is
carried out once it fits beside all that is held. Counted by node and resource; which device holds what is Ray's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlaas.scheduler.types import Gang, Node, Placement, Resources

_SLACK = 1e-6


class Holdings:
    """Amounts by node and resource."""

    def __init__(self) -> None:
        self._capacity: dict[str, dict[str, float]] = {}
        self._outside: dict[str, dict[str, float]] = {}
        self._held: dict[str, dict[str, float]] = {}
        self._leases: dict[str, tuple[Gang, Placement]] = {}

    def set_nodes(self, nodes: Iterable[Node], outside: Mapping[str, Resources]) -> None:
        """Replace the nodes that are there, and what runs on them without a lease."""
        self._capacity = {node.name: node.capacity.amounts() for node in nodes}
        self._outside = {name: used.amounts() for name, used in outside.items()}

    def take(self, lease_id: str, gang: Gang, placement: Placement) -> None:
        """Record that a lease holds a placement."""
        self._leases[lease_id] = (gang, placement)
        self._add(gang, placement, sign=1.0)

    def give(self, lease_id: str) -> None:
        """Record that a lease holds nothing any more."""
        if lease_id in self._leases:
            self._add(*self._leases.pop(lease_id), sign=-1.0)

    def fits(self, gang: Gang, placement: Placement) -> bool:
        """Whether a gang can be placed there beside all that is held."""
        asked = gang.worker.amounts()
        for node, workers in placement.workers:
            capacity = self._capacity.get(node)
            if capacity is None:
                return False
            held, outside = self._held.get(node, {}), self._outside.get(node, {})
            for name, amount in asked.items():
                used = held.get(name, 0.0) + outside.get(name, 0.0)
                if workers * amount > capacity.get(name, 0.0) - used + _SLACK:
                    return False
        return True

    def _add(self, gang: Gang, placement: Placement, *, sign: float) -> None:
        for node, workers in placement.workers:
            held = self._held.setdefault(node, {})
            for name, amount in gang.worker.amounts().items():
                held[name] = held.get(name, 0.0) + sign * workers * amount
