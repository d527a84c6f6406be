"""What an instance is made of: parts that can be probed and started."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mlaas.errors import PlatformError


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What one look at a part found."""

    part: str
    ok: bool
    detail: str
    """Where the part answers, or what is wrong with it."""
    fix: str = ""
    """What to do when it is not ok."""
    has_failed: bool = False
    """Whether waiting is of no use."""


class Part(Protocol):
    """One part of an instance. `start` may be called on a part that is half up: it removes the remains first."""

    name: str
    start_timeout_s: float

    def probe(self) -> Probe:
        """Look at the part, without changing it and without raising."""
        ...

    def start(self) -> None:
        """Begin to start the part; it is up when its probe says so.

        Raises:
            MlaasError: the part cannot start, with the reason.
        """
        ...


def ensure(part: Part, *, poll_s: float = 0.3) -> bool:
    """Start a part that is not up and wait for it. Returns whether it had to be started.

    Raises:
        MlaasError: the part cannot start, or does not answer within its `start_timeout_s`.
    """
    if part.probe().ok:
        return False
    part.start()
    deadline = time.monotonic() + part.start_timeout_s
    while not (probe := part.probe()).ok:
        if probe.has_failed:
            raise PlatformError("start_failed", f"{part.name} does not start: {probe.detail}; {probe.fix}")
        if time.monotonic() > deadline:
            reason = f"{part.name} did not come up within {part.start_timeout_s:.0f} s: {probe.detail}"
            raise PlatformError("start_timeout", f"{reason}; {probe.fix}")
        time.sleep(poll_s)
    return True


def probe_all(parts: Sequence[Part]) -> list[Probe]:
    """Probe each part in turn."""
    return [part.probe() for part in parts]
