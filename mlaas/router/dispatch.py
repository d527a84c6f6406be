"""Drives one call to its end: snapshot, decide, attempt, and again as the flow says."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace

from mlaas.providers.base import Call, Failure, Provider, ProviderFailed
from mlaas.providers.failures import unreadable
from mlaas.providers.sse import encode_event
from mlaas.router.access_log import AccessEntry
from mlaas.router.asgi import Headers, Send, encode_error, send_json, start_stream
from mlaas.router.catalog import Catalog
from mlaas.router.decide import decide
from mlaas.router.egress import Answer, Egress
from mlaas.router.fleet import Fleet
from mlaas.router.flow import FlowLimits, plan_attempts
from mlaas.router.health import Sign, sign_of
from mlaas.router.types import Attempt, Decision, Event, Route, Wait


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatcher:
    """What a call needs on its way: names, live state, connections, bounds."""

    catalog: Catalog
    fleet: Fleet
    egress: Egress
    limits: FlowLimits

    async def answer(self, call: Call, send: Send, entry: AccessEntry) -> None:
        """Answer a call, or say why not.

        Args:
            call: the request.
            send: the caller's side of ASGI.
            entry: filled in for the access log.

        Raises:
            NotFound: the model's name stands for nothing.
            FieldError: the target cannot honour a field.
            ProviderFailed: every attempt failed, and nothing has been sent.
        """
        route = self.catalog.resolve(call.model, local_models=self.fleet.local_models)
        now_s = time.monotonic()
        steps = plan_attempts(self._decide(route, call, now_s), limits=self.limits, now_s=now_s)
        step = next(steps)
        while True:
            failure = None
            if isinstance(step, Wait):
                await asyncio.sleep(step.delay_s)
            else:
                entry.num_attempts += 1
                entry.target, entry.reason = str(step.target), step.reason
                try:
                    await self._attempt(call, step, send, entry)
                except ProviderFailed as error:
                    failure = error.failure
                else:
                    return
            now_s = time.monotonic()
            step = steps.send(
                Event(
                    decision=self._decide(route, call, now_s),
                    now_s=now_s,
                    failure=failure,
                    jitter=random.random(),
                )
            )

    def _decide(self, route: Route, call: Call, now_s: float) -> Decision:
        return decide(self.fleet.snapshot(route, call.operation, now_s=now_s))

    async def _attempt(self, call: Call, attempt: Attempt, send: Send, entry: AccessEntry) -> None:
        """Make one attempt; what it says about its address goes to the fleet, however it ends."""
        provider = self.catalog.providers[attempt.target.provider]
        request = provider.encode_request(call, model=attempt.target.model)
        self.fleet.sent(attempt.origin, now_s=time.monotonic())
        sign = Sign.UNKNOWN
        try:
            request = replace(request, headers={**request.headers, **self.fleet.authorization(attempt.origin)})
            answer = await self.egress.open(provider, attempt.origin, request)
            try:
                if call.is_stream:
                    failure = await self._stream(call, attempt, provider, answer, send, entry)
                    sign = Sign.ALIVE if failure is None else sign_of(failure.kind)
                else:
                    body = provider.decode_answer(call, await answer.read())
                    sign = Sign.ALIVE
                    entry.status = 200
                    await send_json(send, 200, body, _headers(attempt))
            finally:
                answer.close()
        except ProviderFailed as error:
            sign = sign_of(error.failure.kind)
            raise
        finally:
            self.fleet.ended(attempt.origin, sign, now_s=time.monotonic())

    async def _stream(
        self, call: Call, attempt: Attempt, provider: Provider, answer: Answer, send: Send, entry: AccessEntry
    ) -> Failure | None:
        """Pass a stream on. Once its head is sent, a failure is told inside the stream and returned.

        Raises:
            ProviderFailed: the stream fails before its first event.
        """
        if not answer.is_stream:
            raise ProviderFailed(unreadable(provider.name, "an answer that is not a stream"))
        decoder = provider.decode_stream(call)
        is_committed = False
        try:
            async for chunk in answer.chunks():
                events = decoder.feed(chunk)
                if events:
                    if not is_committed:
                        is_committed = True
                        entry.status = 200
                        await start_stream(send, _headers(attempt))
                    await send({"type": "http.response.body", "body": events, "more_body": True})
            tail = decoder.finish()
        except ProviderFailed as error:
            if not is_committed:
                raise
            entry.error = error.failure.code
            event = encode_event(encode_error(error.failure))
            await send({"type": "http.response.body", "body": event})
            return error.failure
        if not is_committed:
            entry.status = 200
            await start_stream(send, _headers(attempt))
        await send({"type": "http.response.body", "body": tail})
        return None


def _headers(attempt: Attempt) -> Headers:
    target = attempt.target
    return [
        (b"x-mlaas-provider", target.provider.encode()),
        (b"x-mlaas-model", target.model.encode()),
        (b"x-mlaas-route-reason", attempt.reason.encode("ascii", "replace")),
    ]
