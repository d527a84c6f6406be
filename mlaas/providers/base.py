"""The seam between the router and a model provider: what goes out, what comes back, and how it can fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from mlaas.errors import InvalidRequest


class Operation(StrEnum):
    """What a caller asks for; the value is the path below `/v1/`."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDINGS = "embeddings"
    COUNT_TOKENS = "messages/count_tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A caller's request, read and checked once.

    `fields` is `body` decoded. Who passes a request through sends `body`; who translates it reads `fields`. `headers`
    are the caller's few headers that belong to the request itself, such as `anthropic-beta`; names in lower case.
    """

    operation: Operation
    model: str
    is_stream: bool
    fields: Mapping[str, Any]
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The tokens of one answer, by how they are priced: each is counted in exactly one of the first five fields.

    Attributes:
        input_tokens: read anew.
        cache_read_tokens: read from the provider's prompt cache.
        cache_write_tokens: written to it, for the usual time.
        cache_write_1h_tokens: written to it for an hour (Anthropic).
        output_tokens: all that is billed as output, reasoning included.
        reasoning_tokens: the part of `output_tokens` that was reasoning.
        reported_cost_usd: what the provider says it billed; None when it does not say.
        is_estimated: counted by us, because the provider's own count did not come.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    reported_cost_usd: Decimal | None = None
    is_estimated: bool = False

    @property
    def prompt_tokens(self) -> int:
        """All that was read, as OpenAI counts a prompt."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.cache_write_1h_tokens

    @property
    def total_tokens(self) -> int:
        """All that was read and written."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A whole answer in the dialect it was asked in, and what it used; None when the provider does not say."""

    body: bytes
    usage: Usage | None


@dataclass(frozen=True, kw_only=True, slots=True)
class WireRequest:
    """An HTTP POST below a provider's base URL."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class FailureKind(StrEnum):
    """How an attempt failed, as far as it matters to what happens next."""

    REFUSED = "refused"
    """No connection: nothing was sent."""
    CLOSED = "closed"
    """The connection ended before the answer did."""
    TIMEOUT = "timeout"
    """No byte in time."""
    OVERLOADED = "overloaded"
    """The upstream refuses for load or quota."""
    FAILED = "failed"
    """The upstream failed, or its answer cannot be read."""
    QUOTA = "quota"
    """The account at the upstream is out of money: waiting does not help there, another target may."""
    UNFIT = "unfit"
    """The target cannot honour the request; nothing was sent."""
    DENIED = "denied"
    """The upstream does not accept our key, account or model name: the target's fault, not the caller's."""
    REJECTED = "rejected"
    """The upstream says that the request itself is wrong: another attempt cannot help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A failed attempt, with the answer that the caller gets when no other attempt follows.

    Attributes:
        kind: what the router decides by.
        status: HTTP status for the caller.
        code: stable identifier, OpenAI's `error.code`.
        message: what happened, and at which upstream.
        type: OpenAI's `error.type`.
        param: the request field that is wrong, if it is one.
        retry_after_s: how long the upstream asks to wait.
    """

    kind: FailureKind
    status: int
    code: str
    message: str
    type: str = "upstream_error"
    param: str | None = None
    retry_after_s: float | None = None


class ProviderFailed(Exception):
    """Carries a `Failure` from where it is seen to where the next attempt is decided; callers never meet it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class FieldError(InvalidRequest):
    """A request field that is wrong, or that the model's provider cannot honour."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(param, message)
        self.code = "invalid_field"
        self.param = param


class StreamDecoder(Protocol):
    """Turns the bytes of one upstream stream into server-sent events.

    The events that end the stream, the one with its usage among them, are held back until `finish`.
    """

    @property
    def usage(self) -> Usage | None:
        """What the stream used, once its end has been fed; None when the upstream does not say."""

    @property
    def num_deltas(self) -> int:
        """Pieces of content passed on so far: about the tokens of an answer that is broken off."""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes from the upstream and return whole events, or nothing yet.

        Raises:
            ProviderFailed: the upstream reports an error inside the stream, or sends what cannot be read.
        """

    def finish(self, cost_usd: Decimal | None) -> bytes:
        """Return what was held back, once the upstream's stream has ended.

        Args:
            cost_usd: added to the usage as `cost_usd`, where the caller gets to see a usage.

        Raises:
            ProviderFailed: the stream ended before its answer was complete.
        """


class Provider(Protocol):
    """One provider's wire format."""

    @property
    def name(self) -> str:
        """The provider's name in `provider/model`."""

    @property
    def base_url(self) -> str:
        """Where the provider listens; empty when each attempt brings its own."""

    @property
    def operations(self) -> frozenset[Operation]:
        """What the provider can answer: what it speaks itself, and chats, which it translates if need be."""

    def encode_request(self, call: Call, *, model: str) -> WireRequest:
        """Return the request as the provider wants it, for its model `model`.

        Raises:
            FieldError: the provider cannot honour a field of the request.
        """

    def decode_answer(self, call: Call, body: bytes) -> Answer:
        """Return an answer to a request that is not streamed, in the dialect of the call.

        Raises:
            ProviderFailed: the answer cannot be read.
        """

    def decode_stream(self, call: Call) -> StreamDecoder:
        """Return a decoder for one streamed answer."""

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return what an answer with an HTTP status of 400 or more means."""
