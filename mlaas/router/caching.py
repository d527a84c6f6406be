"""Answers calls from the caches of their aliases, and keeps the answers of those that missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Final

from mlaas.providers.base import Call, Usage
from mlaas.router.asgi import Headers
from mlaas.router.cache import HEADER, Cached, CacheState, ExactCache, StreamRecorder, cache_key
from mlaas.router.config import CacheConfig
from mlaas.router.record import RequestRecord
from mlaas.router.replay.forms import STREAMED, stream_from_whole, whole_from_stream
from mlaas.router.reply import Reply

Ask = Callable[[Reply, Headers], Awaitable[None]]
"""Answers the call anew, with headers beside the usual ones."""
_FREE: Final = Decimal(0)


class Caching:
    """The caches of a gateway replica.

    Args:
        configs: by alias; an alias that is not there has no cache.
        exact: answers to the very same requests.
    """

    def __init__(self, configs: Mapping[str, CacheConfig], *, exact: ExactCache) -> None:
        self.configs = configs
        self._exact = exact

    async def answer(
        self, call: Call, tenant: str, reply: Reply, record: RequestRecord, *, is_fresh: bool, ask: Ask
    ) -> None:
        """Answer a call from the cache, or anew.

        Args:
            call: asks for an alias of `configs`.
            tenant: whose answers may be used.
            reply: where the answer goes.
            record: filled in when the cache answers.
            is_fresh: the cache is neither read nor written.
            ask: answers anew.

        Raises:
            MlaasError: what `ask` raises.
            ProviderFailed: what `ask` raises.
        """
        config = self.configs[call.model]
        can_replay = not call.is_stream or call.operation in STREAMED
        key = cache_key(call, tenant=tenant) if config.exact and can_replay and not is_fresh else None
        if key is None:
            await ask(reply, [(HEADER, CacheState.BYPASS.value.encode())])
            return
        hit = self._exact.get(key) or await self._exact.join(key)
        if hit is not None:
            await _replay(call, hit, reply, record, state=CacheState.HIT)
            return
        with self._exact.flight(key):
            kept = _KeptReply(reply)
            await ask(kept, [(HEADER, CacheState.MISS.value.encode())])
            body = kept.whole_body(call, usage=record.usage)
            if body is not None and record.status == 200 and record.error is None:
                self._exact.put(key, Cached(body=body, target=record.target or ""), ttl_s=config.ttl_s)


async def _replay(call: Call, hit: Cached, reply: Reply, record: RequestRecord, *, state: CacheState) -> None:
    provider, _, model = hit.target.partition("/")
    headers: Headers = [
        (b"x-mlaas-provider", provider.encode()),
        (b"x-mlaas-model", model.encode()),
        (b"x-mlaas-route-reason", b"answered from the cache"),
        (HEADER, state.value.encode()),
    ]
    record.status, record.target, record.reason = 200, hit.target, "answered from the cache"
    record.cache, record.cost_usd = "exact" if state is CacheState.HIT else state.value, _FREE
    if call.is_stream:
        await reply.start_stream(headers)
        await reply.end_stream(stream_from_whole(call, hit.body, cost_usd=_FREE))
    else:
        await reply.whole(200, hit.body, [*headers, (b"x-mlaas-cost-usd", b"0")])


class _KeptReply:
    """Passes an answer on, and keeps a copy."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._body: bytes | None = None
        self._events = StreamRecorder()
        self._is_stream = False

    async def whole(self, status: int, body: bytes, headers: Headers) -> None:
        """Pass a whole answer on."""
        self._body = body
        await self._reply.whole(status, body, headers)

    async def start_stream(self, headers: Headers) -> None:
        """Pass the head of a stream on."""
        self._is_stream = True
        await self._reply.start_stream(headers)

    async def send(self, events: bytes) -> None:
        """Pass events on."""
        self._events.feed(events)
        await self._reply.send(events)

    async def end_stream(self, events: bytes) -> None:
        """Pass the last events on."""
        self._events.feed(events)
        await self._reply.end_stream(events)

    def whole_body(self, call: Call, *, usage: Usage | None) -> bytes | None:
        """Return the answer in its whole form; None when it broke off or is too long to keep."""
        if not self._is_stream:
            return self._body
        events = self._events.events
        return whole_from_stream(call.operation, events, usage=usage) if events is not None else None
