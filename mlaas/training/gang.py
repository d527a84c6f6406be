"""Where a run's workers may run, as training needs it: a seam that the scheduler's leases happen to fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from mlaas.training.recipes import Recipe


class GangSource(Protocol):
    """A gang that a run holds for as long as it may."""

    @property
    def num_workers(self) -> int:
        """Workers that the run has at this moment."""
        ...

    def node_ids(self) -> Sequence[str]:
        """Return the Ray node of each worker; none: Ray chooses."""
        ...

    def hand_over(self) -> None:
        """Say that the run places its workers itself, on these nodes; repeated for each new placement."""
        ...

    def yield_signal(self) -> object:
        """Return what asks the run to checkpoint and leave; None: nothing does."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether it is the run's no more: a node is gone, or the request to leave was ignored for too long."""
        ...

    def yield_and_wait(self) -> None:
        """Give the gang back, unless it is lost, and wait for the next, which may have another size."""
        ...

    def report(self, *, done: float | None = None, left_s: float | None = None) -> None:
        """Say how far the run is: the part that is done, from 0 to 1, and the seconds left at the present size."""
        ...


class OwnGang:
    """A gang of a fixed size that nobody asks back: for a cluster with one user."""

    is_lost = False

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    def node_ids(self) -> Sequence[str]:
        """Return no nodes: Ray chooses."""
        return ()

    def hand_over(self) -> None:
        """Do nothing: there is nobody to tell."""

    def yield_signal(self) -> None:
        """Return None: nobody asks."""

    def yield_and_wait(self) -> None:
        """Do nothing: the gang stays."""

    def report(self, *, done: float | None = None, left_s: float | None = None) -> None:
        """Do nothing: there is nobody to tell."""


class Gangs(Protocol):
    """Whoever lends gangs."""

    def __call__(self, recipe: Recipe, *, device: str) -> AbstractContextManager[GangSource]:
        """Return a gang for a recipe: waited for when the block is entered, given back when it is left."""
        ...


@contextmanager
def own_gang(recipe: Recipe, *, device: str) -> Iterator[GangSource]:
    """Lend a gang that nobody asks back."""
    yield OwnGang(recipe.gang.workers)
