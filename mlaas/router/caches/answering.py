"""Answers calls from the caches of their aliases, and keeps the answers of those that missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from decimal import Decimal
from typing import Final

from mlaas.providers.base import Call, Usage
from mlaas.router.asgi import Headers
from mlaas.router.caches.exact import HEADER, Cached, CacheState, ExactCache, StreamRecorder, cache_key
from mlaas.router.caches.replay.forms import STREAMED, stream_from_whole, whole_from_stream
from mlaas.router.caches.semantic import Embed, Lookup, SemanticCache, question_of
from mlaas.router.config import CacheConfig
from mlaas.router.record import RequestRecord
from mlaas.router.reply import Reply

Ask = Callable[[Reply, Headers], Awaitable[None]]
"""Answers the call anew, with headers beside the usual ones."""
_FREE: Final = Decimal(0)


class Caching:
    """The caches of a gateway replica.

    Args:
        configs: by alias; an alias that is not there has no cache.
        exact: answers to the very same requests.
        semantic: answers to requests that mean the same.
    """

    def __init__(self, configs: Mapping[str, CacheConfig], *, exact: ExactCache, semantic: SemanticCache) -> None:
        self.configs = configs
        self._exact = exact
        self._semantic = semantic

    async def answer(
        self,
        call: Call,
        tenant: str,
        reply: Reply,
        record: RequestRecord,
        *,
        is_fresh: bool,
        ask: Ask,
        embed: Callable[[str], Embed],
    ) -> None:
        """Answer a call from the cache, or anew.

        Args:
            call: asks for an alias of `configs`.
            tenant: whose answers may be used.
            reply: where the answer goes.
            record: filled in when the cache answers.
            is_fresh: the cache is neither read nor written.
            ask: answers anew.
            embed: returns the embedder of this name.

        Raises:
            MlaasError: what `ask` raises.
            ProviderFailed: what `ask` raises.
        """
        config = self.configs[call.model]
        is_kept = not is_fresh and (not call.is_stream or call.operation in STREAMED)
        key = cache_key(call, tenant=tenant) if is_kept and config.exact else None
        if key is not None:
            hit = self._exact.get(key) or await self._exact.join(key)
            if hit is not None:
                await _replay(call, hit, reply, record, CacheState.HIT, reason="answered from the cache")
                return
        with self._exact.flight(key) if key is not None else nullcontext():
            lookup = await self._look_up(config, call, tenant, embed) if is_kept else None
            if lookup is not None and lookup.hit is not None:
                reason = f"answered from the cache: similarity {lookup.similarity:.3f}"
                await _replay(call, lookup.hit, reply, record, CacheState.SEMANTIC, reason=reason)
                return
            state = CacheState.BYPASS if key is None and lookup is None else CacheState.MISS
            kept = _KeptReply(reply)
            await ask(kept, [(HEADER, state.value.encode())])
            body = kept.whole_body(call, usage=record.usage)
            if body is None or record.status != 200 or record.error is not None:
                return
            cached = Cached(body=body, target=record.target or "")
            if key is not None:
                self._exact.put(key, cached, ttl_s=config.ttl_s)
            if lookup is not None:
                self._semantic.put(lookup, cached, ttl_s=config.ttl_s)

    async def _look_up(
        self, config: CacheConfig, call: Call, tenant: str, embed: Callable[[str], Embed]
    ) -> Lookup | None:
        if config.semantic is None:
            return None
        model = config.semantic.model
        question = question_of(call, tenant=tenant, embedder=model)
        if question is None:
            return None
        return await self._semantic.look_up(question, threshold=config.semantic.threshold, embed=embed(model))


async def _replay(
    call: Call, hit: Cached, reply: Reply, record: RequestRecord, state: CacheState, *, reason: str
) -> None:
    provider, _, model = hit.target.partition("/")
    headers: Headers = [
        (b"x-mlaas-provider", provider.encode()),
        (b"x-mlaas-model", model.encode()),
        (b"x-mlaas-route-reason", reason.encode()),
        (HEADER, state.value.encode()),
    ]
    record.status, record.target, record.reason = 200, hit.target, reason
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
