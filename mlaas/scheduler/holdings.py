"""What the rows of a table hold, as entries side by side in growing arrays."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.cluster import Ints


class Holdings:
    """Entries of rows. An owner's entries come and go together; a vacant entry is of row 0, with zeros."""

    def __init__(self, num_columns: int) -> None:
        self._entries: Ints = np.zeros((1 + num_columns, 64), dtype=np.int64)
        self._positions: dict[str, Ints] = {}
        self._vacant: list[int] = list(range(63, -1, -1))

    def copy(self) -> Self:
        """Return an independent copy."""
        other = copy.copy(self)
        other._entries, other._positions = self._entries.copy(), self._positions.copy()
        other._vacant = self._vacant.copy()
        return other

    def columns(self) -> Ints:
        """Return the row of each entry, and its columns."""
        return self._entries

    def add(self, owner: str, row: int, columns: Sequence[Ints]) -> None:
        """Record the entries of an owner that holds none."""
        count = len(columns[0])
        while len(self._vacant) < count:
            size = self._entries.shape[1]
            self._entries = np.concatenate([self._entries, np.zeros_like(self._entries)], axis=1)
            self._vacant = [*range(2 * size - 1, size - 1, -1), *self._vacant]
        left = len(self._vacant) - count
        positions = np.array(self._vacant[left:], dtype=np.int64)
        del self._vacant[left:]
        self._entries[0, positions] = row
        self._positions[owner] = positions
        self.replace(owner, columns)

    def replace(self, owner: str, columns: Sequence[Ints]) -> None:
        """Replace the entries of an owner by as many others."""
        positions = self._positions[owner]
        for number, values in enumerate(columns, start=1):
            self._entries[number, positions] = values

    def remove(self, owner: str) -> None:
        """Forget the entries of an owner."""
        positions = self._positions.pop(owner)
        self._entries[:, positions] = 0
        self._vacant.extend(positions.tolist())

    def renumber(self, owner: str, row: int) -> None:
        """Give an owner another row."""
        self._entries[0, self._positions[owner]] = row
