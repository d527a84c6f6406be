"""Who waits for a place at a model, and who is next: a bounded queue, pure.

The highest priority goes first. Within one priority the tenants take turns, and the requests of one tenant go in the
order of their arrival: a tenant with a thousand waiting requests delays another's one by one request and no more.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Ticket = TypeVar("Ticket", bound=Hashable)


class WaitingLine(Generic[Ticket]):
    """A number of places and the line for them. A ticket is waiting, has a place, or is not known here."""

    def __init__(self, *, capacity: int = 0) -> None:
        self.capacity = capacity
        self.num_taken = 0
        self._tenants: dict[int, OrderedDict[str, deque[Ticket]]] = {}
        self._waiting: dict[Ticket, tuple[int, str]] = {}

    @property
    def num_waiting(self) -> int:
        """Tickets in the line."""
        return len(self._waiting)

    def try_take(self) -> bool:
        """Take a place at once, if there is one and nobody waits for it."""
        if self.num_taken < self.capacity and not self._waiting:
            self.num_taken += 1
            return True
        return False

    def wait(self, ticket: Ticket, *, priority: int, tenant: str) -> None:
        """Put a ticket in the line.

        Args:
            ticket: not known here yet.
            priority: greater goes first.
            tenant: whose turn it uses.
        """
        tenants = self._tenants.setdefault(priority, OrderedDict())
        tenants.setdefault(tenant, deque()).append(ticket)
        self._waiting[ticket] = (priority, tenant)

    def drop(self, ticket: Ticket) -> bool:
        """Take a ticket out of the line; False when it does not wait any more."""
        place = self._waiting.pop(ticket, None)
        if place is None:
            return False
        priority, tenant = place
        self._tenants[priority][tenant].remove(ticket)
        self._tidy(priority, tenant)
        return True

    def leave(self) -> None:
        """Give a place back."""
        self.num_taken -= 1

    def admit(self) -> list[Ticket]:
        """Give the free places to those who are next, and return them in that order."""
        admitted: list[Ticket] = []
        while self._waiting and self.num_taken < self.capacity:
            priority = max(self._tenants)
            tenants = self._tenants[priority]
            tenant, tickets = next(iter(tenants.items()))
            ticket = tickets.popleft()
            tenants.move_to_end(tenant)
            del self._waiting[ticket]
            self._tidy(priority, tenant)
            self.num_taken += 1
            admitted.append(ticket)
        return admitted

    def _tidy(self, priority: int, tenant: str) -> None:
        tenants = self._tenants[priority]
        if not tenants[tenant]:
            del tenants[tenant]
        if not tenants:
            del self._tenants[priority]
