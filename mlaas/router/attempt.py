"""One try at one address: from the caller's request to an answer in the caller's dialect, or a failure.

An attempt has two halves. `open_answer` goes as far as the first bytes that the caller could see, so that whatever
fails until then can be tried elsewhere, and so that two attempts can race. `Stream.deliver` passes on the rest.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal

from mlaas.providers.base import Call, Failure, Provider, ProviderFailed, StreamDecoder, Usage, WireRequest
from mlaas.providers.failures import unreadable
from mlaas.router.dialects.base import Dialect, StreamTranslator
from mlaas.router.egress.client import Answer, Egress
from mlaas.router.reply import Reply
from mlaas.router.types import Attempt

Price = Callable[[Usage | None, int], Decimal | None]
"""Returns the cost of a usage, which is None when the upstream has not said it, and of a number of deltas."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """A whole answer in the caller's dialect.

    Attributes:
        at_s: monotonic clock when it had come.
        usage: None when the provider does not say.
    """

    attempt: Attempt
    at_s: float
    body: bytes
    usage: Usage | None


class Stream:
    """A streamed answer whose first events have come, unless it has none.

    Attributes:
        attempt: who answers.
        at_s: monotonic clock when the first events had come.
    """

    __slots__ = ("_answer", "_chunks", "_decoder", "_dialect", "_head", "_translator", "at_s", "attempt")

    def __init__(
        self,
        attempt: Attempt,
        answer: Answer,
        *,
        decoder: StreamDecoder,
        translator: StreamTranslator | None,
        dialect: Dialect,
    ) -> None:
        self.attempt = attempt
        self.at_s = 0.0
        self._answer = answer
        self._chunks: AsyncIterator[bytes] = answer.chunks()
        self._decoder = decoder
        self._translator = translator
        self._dialect = dialect
        self._head = b""

    @property
    def usage(self) -> Usage | None:
        """What the stream used; None until its end, and when the provider does not say."""
        return self._decoder.usage

    @property
    def num_deltas(self) -> int:
        """Pieces of content that have come."""
        return self._decoder.num_deltas

    async def begin(self) -> None:
        """Wait for the first events.

        Raises:
            ProviderFailed: the stream fails before them.
        """
        async for chunk in self._chunks:
            self._head = self._translate(self._decoder.feed(chunk))
            if self._head:
                break
        self.at_s = time.monotonic()

    async def deliver(self, reply: Reply, *, price: Price) -> Failure | None:
        """Pass the stream on to its end; a failure is told inside it and returned.

        Args:
            reply: where it goes; its head has been sent.
            price: what the stream costs.
        """
        decoder = self._decoder
        try:
            if self._head:
                await reply.send(self._head)
                async for chunk in self._chunks:
                    events = self._translate(decoder.feed(chunk))
                    if events:
                        await reply.send(events)
            cost_usd = price(decoder.usage, decoder.num_deltas)
            tail = decoder.finish(cost_usd)
            if self._translator is not None:
                tail = self._translator.finish(tail, cost_usd)
        except ProviderFailed as error:
            await reply.end_stream(self._dialect.encode_stream_error(error.failure))
            return error.failure
        await reply.end_stream(tail)
        return None

    def close(self) -> None:
        """Let go of the upstream's connection; what was not read is cancelled there."""
        self._answer.close()

    def _translate(self, events: bytes) -> bytes:
        return self._translator.feed(events) if events and self._translator is not None else events


async def open_answer(
    asked: Call,
    sent: Call,
    attempt: Attempt,
    *,
    provider: Provider,
    dialect: Dialect,
    egress: Egress,
    request: WireRequest,
) -> Whole | Stream:
    """Send a request and wait for its answer, or for the first events of a stream.

    Args:
        asked: the caller's request.
        sent: the same, or the chat that it was translated to when the provider does not speak the caller's dialect.
        attempt: where to.
        provider: who speaks there.
        dialect: the caller's.
        egress: the connections.
        request: what the provider made of `sent`.

    Raises:
        ProviderFailed: nothing of the answer can be used.
    """
    is_native = sent.operation is asked.operation
    answer = await egress.open(provider, attempt.origin, request)
    try:
        if not sent.is_stream:
            decoded = provider.decode_answer(sent, await answer.read())
            at_s = time.monotonic()
            body = decoded.body if is_native else dialect.from_chat(asked, decoded.body)
            answer.close()
            return Whole(attempt=attempt, at_s=at_s, body=body, usage=decoded.usage)
        if not answer.is_stream:
            raise ProviderFailed(unreadable(provider.name, "an answer that is not a stream"))
        stream = Stream(
            attempt,
            answer,
            decoder=provider.decode_stream(sent),
            translator=None if is_native else dialect.stream_from_chat(asked),
            dialect=dialect,
        )
        await stream.begin()
        return stream
    except BaseException:
        answer.close()
        raise
