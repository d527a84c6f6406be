"""From a call to its answer: what its model stands for, the cache, the bill, and the exchange that does the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import orjson

from mlaas.auth.types import KeyLimits, Principal
from mlaas.errors import MlaasError, PermissionDenied
from mlaas.providers.base import Call, Failure, FailureKind, Operation, ProviderFailed
from mlaas.router.alarms import Alarms, TimeLimit
from mlaas.router.asgi import Headers
from mlaas.router.caches.answering import Caching
from mlaas.router.caches.exact import HEADER as CACHE_HEADER
from mlaas.router.caches.exact import CacheState
from mlaas.router.caches.replay.forms import stream_from_whole
from mlaas.router.caches.semantic import Embed
from mlaas.router.catalog import Catalog
from mlaas.router.choice.prefixes import prompt_blocks
from mlaas.router.dialects.build import DIALECTS
from mlaas.router.estimate import estimate_input_tokens
from mlaas.router.exchange import Exchange, World
from mlaas.router.money.billing import Billing
from mlaas.router.need import extent_of, needs_of
from mlaas.router.record import RequestRecord
from mlaas.router.reply import MemoryReply, Reply
from mlaas.router.types import Route, RoutingPolicy, targets_of
from mlaas.router.virtual.answer import answer_virtual
from mlaas.router.virtual.asking import Asked, Tally
from mlaas.router.virtual.config import VirtualConfig

_UNCACHED: Final[Headers] = [(CACHE_HEADER, CacheState.BYPASS.value.encode())]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatcher:
    """Takes calls to a model. One for each configuration; what it stands on lives on when the configuration changes.

    Attributes:
        catalog: what model names stand for.
        world: live state, connections, bounds.
        billing: limits and prices.
        caching: of the aliases that have a cache.
        time_limits: ring when one request has taken as long as it may in all.
    """

    catalog: Catalog
    world: World
    billing: Billing
    caching: Caching
    time_limits: Alarms

    async def answer(
        self, call: Call, principal: Principal, reply: Reply, record: RequestRecord, *, is_fresh: bool = False
    ) -> None:
        """Answer a call, or say why not.

        Args:
            call: the request.
            principal: who asks.
            reply: where the answer goes.
            record: filled in on the way.
            is_fresh: the answer must not come from a cache.

        Raises:
            NotFound: the model's name stands for nothing.
            PermissionDenied: the key may not use the model.
            RateLimited: a limit of the key.
            BudgetExceeded: the key's budget.
            ProviderFailed: every attempt failed, and nothing has been sent.
        """
        allowed = principal.limits.models
        if allowed is not None and call.model not in allowed:
            message = f"this API key may not use model {call.model[:300]!r}; it may use: {', '.join(allowed)}"
            raise PermissionDenied("model_not_allowed", message)

        if call.model not in self.caching.configs:
            await self._ask(call, principal, reply, record, _UNCACHED)
            return

        async def ask(reply: Reply, headers: Headers) -> None:
            await self._ask(call, principal, reply, record, headers)

        embed = partial(self._embedder, replace(principal, limits=KeyLimits()), record)
        tenant = principal.tenant
        await self.caching.answer(call, tenant, reply, record, is_fresh=is_fresh, ask=ask, embed=embed)

    async def _ask(
        self, call: Call, principal: Principal, reply: Reply, record: RequestRecord, headers: Headers
    ) -> None:
        virtual = self.catalog.virtual.get(call.model)
        if virtual is not None and call.operation is not Operation.COUNT_TOKENS:
            await self._answer_virtual(virtual, call, principal, reply, record, headers)
            return
        route = None
        if virtual is None:
            route = self.catalog.resolve(call.model, local_models=self.world.fleet.local_models)
        if route is None or (call.operation is Operation.COUNT_TOKENS and not self._counts_tokens(route)):
            record.status, record.target, record.reason = 200, "gateway", "estimated by the gateway"
            body = orjson.dumps({"input_tokens": estimate_input_tokens(call.fields)})
            await reply.whole(200, body, [(b"x-mlaas-route-reason", b"estimated by the gateway"), *headers])
            return
        await self._answer_routed(route, call, principal, reply, record, headers)

    async def _answer_routed(
        self, route: Route, call: Call, principal: Principal, reply: Reply, record: RequestRecord, headers: Headers
    ) -> None:
        if route.is_alias:
            record.policy = route.policy.value
        num_answers = 2 if route.hedge_after_s is not None else 1
        extent = extent_of(call)
        bill = await self.billing.open(
            call, principal, targets_of(route), extent=extent, at_s=record.at_s, num_answers=num_answers
        )
        exchange = Exchange(
            world=self.world,
            call=call,
            dialect=DIALECTS[call.operation],
            route=route,
            need=needs_of(
                call,
                route,
                extent=extent,
                has_budget=bill.has_budget,
                droppable=self.world.fitter.droppable(route.model),
            ),
            principal=principal,
            bill=bill,
            reply=reply,
            record=record,
            began_s=time.monotonic(),
            blocks=prompt_blocks(call.fields) if route.policy is RoutingPolicy.PREFIX_AFFINITY else (),
            session=_session_of(call),
            headers=[*headers, *self.billing.headers(principal)],
        )
        try:
            with TimeLimit(self.time_limits):
                await exchange.run()
        except TimeoutError:
            failure = _too_long(self.time_limits.delay_s)
            if record.status != 200:
                raise ProviderFailed(failure) from None
            record.error = failure.code
            await reply.end_stream(DIALECTS[call.operation].encode_stream_error(failure))
        finally:
            self.billing.settle(bill)
            record.usage, record.cost_usd = bill.usage, bill.cost_usd

    async def _answer_virtual(
        self,
        config: VirtualConfig,
        call: Call,
        principal: Principal,
        reply: Reply,
        record: RequestRecord,
        headers: Headers,
    ) -> None:
        """Answer with a model that is made of others; each of those is limited and billed as if asked by itself."""
        dialect = DIALECTS[call.operation]
        chat = dialect.to_chat(call)

        async def ask(call: Call, *, model: str) -> Asked:
            inner = RequestRecord(id=record.id, request_id=record.request_id, at_s=record.at_s)
            kept = MemoryReply()
            try:
                await self._ask(call, principal, kept, inner, [])
            except (MlaasError, ProviderFailed, asyncio.CancelledError):
                if inner.usage is not None:
                    tally.count(inner.usage, inner.cost_usd)
                raise
            finally:
                record.num_attempts += inner.num_attempts
            fields = orjson.loads(kept.body)
            return Asked(fields=fields, usage=inner.usage, cost_usd=inner.cost_usd, target=inner.target or model)

        tally = Tally(ask)
        record.policy = "virtual"
        try:
            answer = await answer_virtual(config, chat, tally)
        finally:
            record.usage, record.cost_usd = tally.usage, tally.cost_usd
        record.status, record.target, record.reason = 200, answer.target, answer.reason
        provider, _, model = answer.target.partition("/")
        told: Headers = [
            (b"x-mlaas-provider", provider.encode()),
            (b"x-mlaas-model", model.encode()),
            (b"x-mlaas-route-reason", answer.reason.encode("ascii", "replace")),
            *headers,
            *self.billing.headers(principal),
        ]
        if not call.is_stream:
            if answer.cost_usd is not None:
                told.append((b"x-mlaas-cost-usd", f"{answer.cost_usd:f}".encode()))
            await reply.whole(200, dialect.from_chat(call, answer.body), told)
            return
        events = stream_from_whole(chat, answer.body, cost_usd=answer.cost_usd)
        head, tail = _split_tail(events)
        translator = dialect.stream_from_chat(call)
        await reply.start_stream(told)
        await reply.send(translator.feed(head))
        await reply.end_stream(translator.finish(tail, answer.cost_usd))

    def _embedder(self, principal: Principal, record: RequestRecord, model: str) -> Embed:
        """Return who embeds for the semantic cache: the house pays for it, so no limit of the caller applies."""

        async def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
            fields = {"model": model, "input": list(texts), "encoding_format": "float"}
            call = Call(
                operation=Operation.EMBEDDINGS, model=model, is_stream=False, fields=fields, body=orjson.dumps(fields)
            )
            kept = MemoryReply()
            inner = RequestRecord(id=record.id, request_id=record.request_id, at_s=record.at_s)
            await self._ask(call, principal, kept, inner, [])
            return [each["embedding"] for each in orjson.loads(kept.body)["data"]]

        return embed

    def _counts_tokens(self, route: Route) -> bool:
        providers = (self.catalog.providers.get(target.provider) for target in route.targets)
        return any(each is not None and Operation.COUNT_TOKENS in each.operations for each in providers)


def _session_of(call: Call) -> str:
    """Return the caller's name for a conversation; empty when there is none."""
    found = call.fields.get("prompt_cache_key") or call.fields.get("user")
    return found if isinstance(found, str) else ""


def _split_tail(events: bytes) -> tuple[bytes, bytes]:
    """Split a stream of chat chunks before its last chunk of usage and `[DONE]`."""
    blocks = events.split(b"\n\n")
    num_last = 3 if b'"choices":[]' in blocks[-3] else 2
    tail = b"\n\n".join(blocks[-num_last:])
    return events[: len(events) - len(tail)], tail


def _too_long(total_s: float) -> Failure:
    return Failure(
        kind=FailureKind.TIMEOUT,
        status=504,
        code="request_timeout",
        message=f"the request took longer than the {total_s:g} s that the gateway allows one in all",
    )
