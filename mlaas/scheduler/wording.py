"""Numbers and names as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.scheduler.types import Resources

_STEPS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))
MOST_NAMED = 4
"""Names in one sentence; the others are counted."""


def duration(seconds: float) -> str:
    """Return a time in the largest unit of which it is at least one and a half."""
    for size, name in _STEPS:
        if abs(seconds) >= 1.5 * size:
            return f"{seconds / size:.3g} {name}" if abs(seconds) < 100 * size else f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def amount(resource: str, value: float) -> str:
    """Return an amount of a resource, by Ray's name of it."""
    if resource == "memory":
        return f"{value / 2**30:.3g} GiB of memory"
    named = f"{value:.10g} {resource}"
    return named if resource not in ("GPU", "CPU") or value == 1 else f"{named}s"


def magnitude(needs: Resources, *, times: float = 1) -> str:
    """Return what tells an amount of machines from others: its GPUs; without any, what comes next."""
    amounts = list(needs.amounts().items()) or [("CPU", 0.0)]
    resource, value = amounts[0]
    return amount(resource, round(value * times, 4))


def count(number: int, noun: str) -> str:
    """Return a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Return names in a row, the first few of many."""
    if len(names) > MOST_NAMED:
        return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))
