"""What is counted of requests: one bundle of plain numbers for each set of labels."""

from __future__ import annotations

from bisect import bisect_left
from decimal import Decimal
from typing import NamedTuple, Protocol

from mlaas.observability.definitions import DURATION, INTER_TOKEN, QUEUE_WAIT, TTFT, Definition


class UsedTokens(Protocol):
    """The tokens of one answer."""

    @property
    def input_tokens(self) -> int:
        """Read anew."""

    @property
    def cache_read_tokens(self) -> int:
        """Read from the provider's cache."""

    @property
    def cache_write_tokens(self) -> int:
        """Written to it."""

    @property
    def cache_write_1h_tokens(self) -> int:
        """Written to it for an hour."""

    @property
    def output_tokens(self) -> int:
        """Written."""

    @property
    def reasoning_tokens(self) -> int:
        """The part of them that was reasoning."""


class EndedRequest(Protocol):
    """What is counted of a request; `mlaas.router.record.RequestRecord` is one."""

    @property
    def operation(self) -> str:
        """Path below `/v1/`; empty for what is no call to a model, which is not counted."""

    @property
    def model(self) -> str | None:
        """What the caller asked for."""

    @property
    def target(self) -> str | None:
        """Who answered, `provider/model`."""

    @property
    def is_stream(self) -> bool:
        """Whether the answer was streamed; only then its first token and the time between tokens count."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def error(self) -> str | None:
        """Code of the error that the caller got."""

    @property
    def cache(self) -> str:
        """Kind of cache that answered."""

    @property
    def duration_ms(self) -> float:
        """Until the last byte."""

    @property
    def ttft_ms(self) -> float | None:
        """Until the first content."""

    @property
    def queue_ms(self) -> float:
        """Spent waiting for a place."""

    @property
    def usage(self) -> UsedTokens | None:
        """Tokens."""

    @property
    def cost_usd(self) -> Decimal | None:
        """Dollars."""


class Labels(NamedTuple):
    """What tells one bundle from another."""

    operation: str
    model: str
    target: str
    status: int
    error: str
    cache: str

    @property
    def is_refusal(self) -> bool:
        """Whether the gateway itself said 429, before any upstream was asked."""
        return self.status == 429 and not self.target


class Histogram:
    """Counts values by bucket."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, definition: Definition) -> None:
        self.bounds = definition.buckets
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value; one on a bound belongs below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Series:
    """The numbers of all requests with the same labels."""

    __slots__ = (
        "cache_read_tokens",
        "cache_write_tokens",
        "cost_usd",
        "duration",
        "input_tokens",
        "inter_token",
        "num_requests",
        "output_tokens",
        "queue_wait",
        "reasoning_tokens",
        "ttft",
    )

    def __init__(self) -> None:
        self.num_requests = 0
        self.input_tokens = 0
        self.cache_read_tokens = 0
        self.cache_write_tokens = 0
        self.output_tokens = 0
        self.reasoning_tokens = 0
        self.cost_usd = 0.0
        self.duration = Histogram(DURATION)
        self.ttft = Histogram(TTFT)
        self.inter_token = Histogram(INTER_TOKEN)
        self.queue_wait = Histogram(QUEUE_WAIT)

    def add(self, request: EndedRequest) -> None:
        """Count a request."""
        self.num_requests += 1
        usage = request.usage
        num_written = 0
        if usage is not None:
            num_written = usage.output_tokens
            self.input_tokens += usage.input_tokens
            self.cache_read_tokens += usage.cache_read_tokens
            self.cache_write_tokens += usage.cache_write_tokens + usage.cache_write_1h_tokens
            self.output_tokens += num_written
            self.reasoning_tokens += usage.reasoning_tokens
        if request.cost_usd:
            self.cost_usd += float(request.cost_usd)
        if request.queue_ms:
            self.queue_wait.observe(request.queue_ms / 1000)
        if request.status != 200:
            return
        self.duration.observe(request.duration_ms / 1000)
        ttft_ms = request.ttft_ms
        if request.is_stream and ttft_ms is not None:
            self.ttft.observe(ttft_ms / 1000)
            if num_written > 1:
                self.inter_token.observe((request.duration_ms - ttft_ms) / 1000 / (num_written - 1))
