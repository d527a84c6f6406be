"""One request on its way: the attempts that its flow asks for, the answer that goes to its caller, what that used."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from decimal import Decimal

from mlaas.auth.types import Principal
from mlaas.observability.metrics import Metrics
from mlaas.observability.tracing import AttemptTrace, RequestTrace
from mlaas.providers.base import Call, Failure, Operation, ProviderFailed, Usage, WireRequest
from mlaas.providers.vllm import LOCAL
from mlaas.router.asgi import Headers
from mlaas.router.attempt import Stream, Whole, open_answer
from mlaas.router.choice.admission import Admission
from mlaas.router.choice.decide import decide
from mlaas.router.choice.decision_log import Logged
from mlaas.router.choice.fleet import Fleet
from mlaas.router.choice.flow import FlowLimits, Step, plan_attempts
from mlaas.router.choice.health import Sign, sign_of
from mlaas.router.choice.retry_budget import RetryBudget
from mlaas.router.dialects.base import Dialect
from mlaas.router.egress.client import Egress
from mlaas.router.fit import Fitted, Fitter
from mlaas.router.money.billing import Bill, estimate_usage
from mlaas.router.money.throughput import Throughput
from mlaas.router.record import RequestRecord
from mlaas.router.reply import Reply
from mlaas.router.types import Attempt, Event, Hedge, Need, Route, Snapshot, Wait

_FREE = Decimal(0)
"""What a target without a price counts as."""

TRACE: ContextVar[RequestTrace | None] = ContextVar("trace", default=None)
"""The trace of the request that this task answers; None where nobody collects traces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """What all requests share: live state, connections, bounds."""

    fleet: Fleet
    egress: Egress
    retries: RetryBudget
    limits: FlowLimits
    fitter: Fitter
    admission: Admission
    metrics: Metrics
    throughput: Throughput


@dataclass(kw_only=True, slots=True)
class _Begun:
    """An attempt that has an answer, or the first events of one."""

    attempt: Attempt
    fitted: Fitted
    at_s: float
    answer: Whole | Stream
    places: AsyncExitStack | None = None
    """The places at local models that it holds."""


@dataclass(kw_only=True, slots=True)
class Exchange:
    """One request that is routed and paid for.

    Attributes:
        call: what is asked, in the caller's dialect.
        need: what it asks of a target.
        blocks: names of its prompt's blocks, for `prefix_affinity`.
        session: the caller's name for the conversation.
        began_s: monotonic clock when it came in.
        record: filled in on the way.
        headers: go out with the answer, beside those that tell who gave it.
    """

    world: World
    call: Call
    dialect: Dialect
    route: Route
    need: Need
    principal: Principal
    bill: Bill
    reply: Reply
    record: RequestRecord
    began_s: float
    blocks: Sequence[int] = ()
    session: str = ""
    headers: Headers = field(default_factory=list)

    async def run(self) -> None:
        """Try until someone answers.

        Raises:
            ProviderFailed: every attempt failed, and nothing has been sent.
        """
        world, now_s = self.world, time.monotonic()
        world.retries.earn(now_s=now_s)
        world.fleet.arrived(self.route, now_s=now_s)
        snapshot = self._snapshot(now_s)
        decision = decide(snapshot)
        if self.route.is_alias:
            self.record.decision = Logged(snapshot=snapshot, decision=decision)
        steps = plan_attempts(decision, limits=world.limits, now_s=now_s)
        step: Step = next(steps)
        while True:
            if isinstance(step, Attempt):
                outcome = await (self._race(step, steps) if step.hedge_after_s else self._try(step))
                if isinstance(outcome, _Begun):
                    await self._deliver(outcome)
                    return
                event = self._event(failure=outcome) if isinstance(outcome, Failure) else outcome
            else:
                assert isinstance(step, Wait)  # A hedge is only yielded inside a race.
                await asyncio.sleep(step.delay_s)
                event = self._event()
            step = steps.send(event)

    async def _try(self, attempt: Attempt) -> _Begun | Failure:
        try:
            return await self._begin(attempt)
        except ProviderFailed as error:
            return error.failure

    async def _race(self, first: Attempt, steps: Generator[Step, Event, None]) -> _Begun | Event:
        """Ask one address, and another beside it when it is slow; the first answer wins."""
        tasks = [asyncio.create_task(self._try(first))]
        winner: _Begun | None = None
        try:
            await asyncio.wait(tasks, timeout=first.hedge_after_s)
            if not tasks[0].done():
                step = steps.send(self._event(is_slow=True))
                if isinstance(step, Hedge):
                    tasks.append(asyncio.create_task(self._try(step.attempt)))
            while (winner := _winner(tasks)) is None and (running := [each for each in tasks if not each.done()]):
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if winner is not None:
                return winner
            failures = [outcome for task in tasks if isinstance(outcome := task.result(), Failure)]
            return self._event(failure=failures[0], hedge_failure=failures[1] if len(failures) > 1 else None)
        finally:
            await self._drop(tasks, winner)

    async def _drop(self, tasks: Sequence[asyncio.Task[_Begun | Failure]], winner: _Begun | None) -> None:
        """Cancel the attempts that have lost; what they have used is billed as far as it is known."""
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, _Begun) and outcome is not winner:
                self._charge(outcome, outcome.answer.usage)
                await self._end(outcome, Sign.UNKNOWN)

    async def _begin(self, attempt: Attempt) -> _Begun:
        """Make an attempt as far as its first bytes.

        Raises:
            ProviderFailed: it failed.
        """
        fitted = self.world.fitter.fit(
            self.call,
            attempt.target,
            alias=self.route.model,
            dialect=self.dialect,
            max_output_tokens=self.bill.max_output_tokens,
        )
        if attempt.target.provider != LOCAL:
            return await self._ask(attempt, fitted)
        async with AsyncExitStack() as places:
            begun = await self._ask(await self._enter(attempt, places), fitted)
            begun.places = places.pop_all()
            return begun

    async def _ask(self, attempt: Attempt, fitted: Fitted) -> _Begun:
        """Send a request and wait for its first bytes, with all the accounting of an attempt.

        Raises:
            ProviderFailed: it failed.
        """
        world, record, target, origin = self.world, self.record, attempt.target, attempt.origin
        now_s = time.monotonic()
        if attempt.is_retry:
            world.retries.spend(now_s=now_s)
        name = str(target)
        previous = record.target if record.num_attempts else None
        record.num_attempts += 1
        record.target, record.reason = name, attempt.reason
        span = self._begin_span(attempt)
        world.fleet.sent(origin, now_s=now_s, target=target, blocks=self.blocks)
        outcome, sign, rest = "cancelled", Sign.UNKNOWN, None
        is_begun = False
        try:
            answer = await open_answer(
                fitted.asked,
                fitted.sent,
                attempt,
                provider=fitted.provider,
                dialect=self.dialect,
                egress=world.egress,
                request=_with_headers(fitted.request, world.fleet.authorization(origin), span),
            )
            is_begun = True
            return _Begun(attempt=attempt, fitted=fitted, at_s=now_s, answer=answer)
        except ProviderFailed as error:
            outcome, sign = error.failure.kind.value, sign_of(error.failure.kind)
            # Of several keys the one that was refused rests, and not the provider: the next one is asked at once.
            is_of_key = world.fitter.report(fitted, error.failure)
            rest = None if is_of_key else error.failure
            if not is_of_key or not world.fitter.has_key(target.provider):
                raise
        finally:
            if not is_begun:
                world.fleet.ended(origin, sign, now_s=time.monotonic(), target=target, failure=rest)
            if span is not None:
                span.end(failure=None if is_begun else outcome)
            world.metrics.count_attempt(name, outcome="ok" if is_begun else outcome, previous=previous)
        return await self._begin(attempt)

    async def _enter(self, attempt: Attempt, places: AsyncExitStack) -> Attempt:
        """Wait for a place at a local model; return the attempt, at the replica that is best when there is one.

        Raises:
            ProviderFailed: too many wait already, or no place came free in time.
        """
        model = attempt.target.model
        place = self.world.admission.place(
            model,
            num_replicas=len(self.world.fleet.engines().get(model, ())),
            priority=self.principal.limits.priority,
            tenant=self.principal.tenant,
        )
        waited_s = await places.enter_async_context(place)
        if not waited_s:
            return attempt
        self.record.queue_ms += round(waited_s * 1000, 3)
        again = decide(self._snapshot(time.monotonic())).attempts
        best = next((each for each in again if each.target == attempt.target), attempt)
        return replace(attempt, origin=best.origin)

    async def _deliver(self, begun: _Begun) -> None:
        """Hand an answer to the caller, and settle what it used however that ends."""
        attempt, answer, record = begun.attempt, begun.answer, self.record
        record.target, record.reason, record.status = str(attempt.target), attempt.reason, 200
        record.ttft_ms = round((answer.at_s - self.began_s) * 1000, 3)
        sign, is_charged = Sign.UNKNOWN, False
        try:
            if isinstance(answer, Whole):
                cost_usd = self._charge(begun, answer.usage) or _FREE
                is_charged, sign = True, Sign.ALIVE
                await self.reply.whole(200, answer.body, self._headers(begun, cost_usd))
                return

            def price(usage: Usage | None, num_deltas: int) -> Decimal | None:
                nonlocal is_charged
                is_charged = True
                return self._charge(begun, usage) or _FREE

            await self.reply.start_stream(self._headers(begun, None))
            failure = await answer.deliver(self.reply, price=price)
            sign = Sign.ALIVE if failure is None else sign_of(failure.kind)
            if failure is not None:
                record.error = failure.code
        finally:
            if not is_charged:
                self._charge(begun, answer.usage)
            await self._end(begun, sign)

    def _charge(self, begun: _Begun, usage: Usage | None) -> Decimal | None:
        """Put what an answer used on the bill, estimated when its provider has not said it.

        Returns:
            What the request has cost by now: a hedge that lost may be on the bill too.
        """
        answer, target = begun.answer, begun.attempt.target
        if self.call.operation is Operation.COUNT_TOKENS:
            return None
        if usage is None:
            usage = estimate_usage(
                self.call, answer.num_deltas if isinstance(answer, Stream) else len(answer.body) // 4
            )
        if target.provider == LOCAL:
            self.world.throughput.count(target.model, usage)
        now_s = time.monotonic()
        self.world.fleet.observe(
            begun.attempt.origin,
            target=target,
            ttft_s=answer.at_s - begun.at_s if isinstance(answer, Stream) else None,
            duration_s=now_s - begun.at_s,
            output_tokens=usage.output_tokens,
            now_s=now_s,
        )
        self.bill.add(target, usage)
        return self.bill.cost_usd

    async def _end(self, begun: _Begun, sign: Sign) -> None:
        """Let go of all that an answer holds."""
        attempt = begun.attempt
        if isinstance(begun.answer, Stream):
            begun.answer.close()
        self.world.fleet.ended(attempt.origin, sign, now_s=time.monotonic(), target=attempt.target)
        if begun.places is not None:
            await begun.places.aclose()

    def _headers(self, begun: _Begun, cost_usd: Decimal | None) -> Headers:
        attempt, target = begun.attempt, begun.attempt.target
        headers = [
            (b"x-mlaas-provider", target.provider.encode()),
            (b"x-mlaas-model", target.model.encode()),
            (b"x-mlaas-route-reason", attempt.reason.encode("ascii", "replace")),
            *self.headers,
        ]
        if cost_usd is not None:
            headers.append((b"x-mlaas-cost-usd", f"{cost_usd:f}".encode()))
        if begun.fitted.dropped:
            headers.append((b"x-mlaas-dropped", ", ".join(begun.fitted.dropped).encode("ascii", "replace")))
        return headers

    def _begin_span(self, attempt: Attempt) -> AttemptTrace | None:
        trace = TRACE.get()
        return trace.attempt(str(attempt.target), reason=attempt.reason) if trace is not None else None

    def _event(
        self, *, failure: Failure | None = None, hedge_failure: Failure | None = None, is_slow: bool = False
    ) -> Event:
        now_s = time.monotonic()
        return Event(
            decision=decide(self._snapshot(now_s)),
            now_s=now_s,
            failure=failure,
            hedge_failure=hedge_failure,
            is_slow=is_slow,
            may_retry=self.world.retries.allows(now_s=now_s),
            jitter=random.random(),
        )

    def _snapshot(self, now_s: float) -> Snapshot:
        return self.world.fleet.snapshot(
            self.route, self.call.operation, now_s=now_s, need=self.need, blocks=self.blocks, session=self.session
        )


def _with_headers(request: WireRequest, authorization: Mapping[str, str], span: AttemptTrace | None) -> WireRequest:
    """Return the request with an endpoint's own key, and with the trace that it is a part of."""
    traced = span.headers if span is not None else {}
    if not authorization and not traced:
        return request
    return replace(request, headers={**request.headers, **authorization, **traced})


def _winner(tasks: Sequence[asyncio.Task[_Begun | Failure]]) -> _Begun | None:
    """Return the first of the attempts that has an answer."""
    for task in tasks:
        if task.done() and isinstance(outcome := task.result(), _Begun):
            return outcome
    return None
