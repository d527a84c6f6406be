"""Follows the router's file: a valid change is handed on, an invalid one is refused and said, and the old one stays."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlaas.errors import ConfigError
from mlaas.router.config import RouterConfig
from mlaas.router.config_file import load_config

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigState:
    """What is in force, for `/healthz`.

    Attributes:
        version: first characters of the digest of the file that is in force.
        refused: why the file as it is now is not in force, with line and reason; empty when it is.
    """

    version: str
    refused: str = ""


class ConfigReload:
    """Looks at the file when told to, and hands a valid change on.

    Requests that are under way keep what they began with: a configuration is replaced as a whole, and never changed.

    Args:
        path: the router's file.
        apply: puts a configuration in force, or raises `ConfigError`.
    """

    def __init__(self, path: Path, apply: Callable[[RouterConfig], None]) -> None:
        self._path = path
        self._apply = apply
        self._seen = _digest(path)
        self.state = ConfigState(version=self._seen[:12])

    async def check(self) -> bool:
        """Look at the file once, its reading in a thread; returns whether a new configuration is in force."""
        digest = await asyncio.to_thread(_digest, self._path)
        if digest == self._seen:
            return False
        self._seen = digest
        try:
            self._apply(await asyncio.to_thread(load_config, self._path))
        except ConfigError as error:
            self.state = ConfigState(version=self.state.version, refused=error.message)
            logger.error("the router's file is refused, the one before stays in force: %s", error.message)
            return False
        self.state = ConfigState(version=digest[:12])
        logger.warning("the router's file %s is in force, version %s", self._path, self.state.version)
        return True


def _digest(path: Path) -> str:
    """Return the digest of a file's bytes; empty when it cannot be read.

    The bytes and not the time of change: a mounted ConfigMap, an editor and a restore from backup each treat times in
    their own way, and the file is small.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
