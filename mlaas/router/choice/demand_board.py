"""Where the gateway replicas of a machine see each other's demand: a file for each, read by whichever is asked."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from mlaas.router.choice.demand import Demand, combine

FRESH_S: Final = 5.0
"""A replica that has not posted for so long is gone, or stands still; it posts each second."""

logger = logging.getLogger(__name__)


class DemandBoard:
    """What one replica posts, and the sum of all. Its methods block, for as long as small files take.

    Args:
        folder: shared by the replicas of a machine.
        replica: name of this process, unique in the folder.
        clock: what the files' times are compared with.
    """

    def __init__(self, folder: Path, *, replica: str, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._path = folder / f"{replica}.json"
        self._clock = clock

    def post(self, own: Sequence[Demand]) -> None:
        """Let the other replicas know what this one sees, and forget those that are gone.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps([asdict(each) for each in own]))
        new.replace(self._path)
        for path in self._folder.glob("*.json"):
            if not self._is_fresh(path):
                path.unlink(missing_ok=True)

    def total(self, own: Sequence[Demand], *, per_replica: int) -> tuple[Demand, ...]:
        """Return the demand for each model as all replicas together see it, this one as it is now."""
        by_model: dict[str, list[Demand]] = {}
        for each in (*own, *self._others()):
            by_model.setdefault(each.model, []).append(each)
        return tuple(combine(seen, per_replica=per_replica) for _, seen in sorted(by_model.items()))

    def close(self) -> None:
        """Take away what this replica has posted."""
        self._path.unlink(missing_ok=True)

    def _others(self) -> Iterator[Demand]:
        for path in self._folder.glob("*.json"):
            if path == self._path or not self._is_fresh(path):
                continue
            try:
                seen = [Demand(**fields) for fields in json.loads(path.read_bytes())]
            except FileNotFoundError:
                continue  # That replica has ended just now.
            except (OSError, ValueError, TypeError) as error:  # Of another version, while replicas are replaced.
                logger.warning("%s is not read: %r", path, error)
                continue
            yield from seen

    def _is_fresh(self, path: Path) -> bool:
        with suppress(OSError):
            return abs(self._clock() - path.stat().st_mtime) <= FRESH_S
        return False
