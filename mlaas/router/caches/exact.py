"""Answers kept for requests that come again: exact, in this process's memory, for the aliases that ask for it.

A gateway replica keeps its own cache: replicas do not share it, so a repeated request hits on the replica that has
answered it before, and a restart empties it. What is never shared at all is an answer between tenants.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, Operation
from mlaas.router.request import ClientGone

HEADER: Final = b"x-mlaas-cache"
"""Of a request: `bypass` or `no-store` goes past the cache. Of an answer: a `CacheState`."""
MAX_ENTRY_BYTES: Final = 4 * 1024 * 1024
"""Longer answers are not kept."""

# They change who is asking or how the answer travels, never what it says.
_IMMATERIAL = frozenset({"model", "stream", "stream_options", "user", "metadata", "safety_identifier"})
# Responses are left out: they live on under their id, and each one has to be its own.
_CACHEABLE = frozenset({Operation.CHAT, Operation.COMPLETION, Operation.MESSAGES, Operation.EMBEDDINGS})
_ENTRY_OVERHEAD_BYTES = 512


class CacheState(StrEnum):
    """What the cache did for a request; the value of the answer's header."""

    HIT = "hit"
    SEMANTIC = "semantic"
    MISS = "miss"
    BYPASS = "bypass"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cached:
    """A complete, successful answer: its whole form in the caller's API, and who gave it."""

    body: bytes
    target: str


def is_bypassed(value: bytes | None) -> bool:
    """Tell from the request's `x-mlaas-cache` header whether the cache is neither read nor written."""
    return value is not None and value.strip().lower() in (b"bypass", b"no-store")


def cache_key(call: Call, *, tenant: str) -> bytes | None:
    """Return the SHA-256 of all that an answer depends on; None when the request cannot be cached.

    Two requests have the same key only if tenant, operation, alias, forwarded headers and every field are equal, apart
    from those that do not shape the answer (user, metadata, streaming). Fields that are null count as absent. Below the
    top level the order of an object counts: in a JSON schema it is the order in which a model writes.
    """
    if call.operation not in _CACHEABLE:
        return None
    parts = [tenant, call.operation.value, call.model, sorted(call.headers.items()), material_fields(call)]
    try:
        return hashlib.sha256(orjson.dumps(parts)).digest()
    except orjson.JSONEncodeError:  # Nested deeper than the encoder goes.
        return None


def material_fields(call: Call) -> list[tuple[str, Any]]:
    """Return the fields that shape the answer, by name; those that are null count as absent."""
    fields = call.fields
    return [(name, fields[name]) for name in sorted(fields) if name not in _IMMATERIAL and fields[name] is not None]


class ExactCache:
    """Answers by key, bounded in bytes and in number; the one that was not used for the longest time goes first.

    Args:
        max_bytes: of answers and an overhead of 512 bytes for each.
        max_entries: answers.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        max_entries: int = 50_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, Cached]] = OrderedDict()
        self._flights: dict[bytes, asyncio.Future[bool]] = {}
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Cached | None:
        """Return the answer that is kept under a key and not too old."""
        found = self._entries.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return found[1]

    def put(self, key: bytes, cached: Cached, *, ttl_s: float) -> None:
        """Keep an answer for `ttl_s` seconds, in place of an older one; a very long one is not kept."""
        self._drop(key)
        if len(cached.body) > min(MAX_ENTRY_BYTES, self._max_bytes - _ENTRY_OVERHEAD_BYTES):
            return
        self._entries[key] = (self._clock() + ttl_s, cached)
        self.num_bytes += len(cached.body) + _ENTRY_OVERHEAD_BYTES
        while self.num_bytes > self._max_bytes or len(self._entries) > self._max_entries:
            self._drop(next(iter(self._entries)))

    @contextmanager
    def flight(self, key: bytes) -> Iterator[None]:
        """While the block runs, the same requests may wait in `join` for the answer that it will put."""
        if key in self._flights:
            yield
            return
        landed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._flights[key] = landed
        was_left = False
        try:
            yield
        except (asyncio.CancelledError, ClientGone):
            was_left = True
            raise
        finally:
            del self._flights[key]
            landed.set_result(was_left)

    async def join(self, key: bytes) -> Cached | None:
        """Wait while the same request is under way, and return its answer.

        When its caller leaves, the first of those who wait asks in his place and the others wait on: a crowd does not
        ask at once because one of it has gone.

        Returns:
            The answer; None when there is none under way, or it has ended without one to keep: then ask yourself.
        """
        while (flight := self._flights.get(key)) is not None:
            was_left = await asyncio.shield(flight)
            if not was_left:
                return self.get(key)
        return self.get(key)

    def _drop(self, key: bytes) -> None:
        dropped = self._entries.pop(key, None)
        if dropped is not None:
            self.num_bytes -= len(dropped[1].body) + _ENTRY_OVERHEAD_BYTES


class StreamRecorder:
    """Keeps what a stream has sent, up to the longest answer that is cached."""

    __slots__ = ("_num_bytes", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._num_bytes = 0

    def feed(self, events: bytes) -> None:
        """Take bytes that went to the caller."""
        self._num_bytes += len(events)
        if self._num_bytes > MAX_ENTRY_BYTES:
            self._pieces.clear()
        else:
            self._pieces.append(events)

    @property
    def events(self) -> bytes | None:
        """The whole stream; None when it grew too long to keep."""
        return b"".join(self._pieces) if self._num_bytes <= MAX_ENTRY_BYTES else None
