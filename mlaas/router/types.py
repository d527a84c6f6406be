"""The router's vocabulary: frozen values that decisions are made of.

None of them has slots: orjson writes instances with a `__dict__` five times as fast, and each decision is logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mlaas.providers.base import Failure


@dataclass(frozen=True, kw_only=True)
class Target:
    """One model of one provider, written `provider/model`."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class RoutingPolicy(StrEnum):
    """How an alias chooses among its targets; each has its file in `mlaas.router.choice.policies`."""

    FAILOVER = "failover"
    """The first target that is up, in the order written."""
    WEIGHTED = "weighted"
    """Shares of the traffic by weight."""
    CHEAPEST = "cheapest"
    """The lowest expected cost of this very request."""
    FASTEST = "fastest"
    """The earliest predicted end, from live time to first token and tokens per second."""
    BALANCED = "balanced"
    """Cost, latency and quality at once, under the SLO."""
    LEAST_LOADED = "least_loaded"
    """The shortest engine queue, then the fewest running, then the emptiest KV cache."""
    PREFIX_AFFINITY = "prefix_affinity"
    """The replica that has seen most of the prompt, unless it is much busier than the others."""
    AUTO = "auto"
    """The best quality per dollar for the request's task."""


@dataclass(frozen=True, kw_only=True)
class Slo:
    """What an alias promises.

    Attributes:
        ttft_s: longest time to the first token. None: not promised.
        tokens_per_s: slowest stream. None: not promised.
    """

    ttft_s: float | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class BurstLimits:
    """When an alias's traffic may overflow, and to where.

    Attributes:
        targets: take the overflow, in this order; they get no request for any other reason.
        max_queue: requests that may wait at the least busy home address. None: the queue is not looked at.
        ttft_s: longest predicted time to first token. None: the SLO's.
        return_ratio: during a burst the home takes a request again below this share of the limits.
        hold_s: the burst ends once the home has been below that share for so long.
        cold_start: the targets also stand in while a deployed model has no live replica.
    """

    targets: tuple[Target, ...]
    max_queue: float | None = None
    ttft_s: float | None = None
    return_ratio: float = 0.5
    hold_s: float = 10.0
    cold_start: bool = True


@dataclass(frozen=True, kw_only=True)
class BalanceWeights:
    """Exponents of the `balanced` policy; 0 leaves a factor out."""

    cost: float = 1.0
    latency: float = 1.0
    quality: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a model name stands for: an alias's targets, or the one target it names.

    Attributes:
        weights: one for each of `targets`; empty when all weigh the same.
        slo: None when nothing is promised.
        burst: None when no traffic may overflow.
        residency: tags that an external target must all carry.
        hedge_after_s: a second address is asked when the first is silent for so long. None: never.
        max_attempts: attempts of one request in all. None: the gateway's own bound.
    """

    model: str
    targets: tuple[Target, ...]
    policy: RoutingPolicy = RoutingPolicy.FAILOVER
    is_alias: bool = False
    weights: tuple[float, ...] = ()
    slo: Slo | None = None
    burst: BurstLimits | None = None
    residency: tuple[str, ...] = ()
    balance: BalanceWeights = field(default=BalanceWeights())
    hedge_after_s: float | None = None
    max_attempts: int | None = None


def targets_of(route: Route) -> tuple[Target, ...]:
    """Return every target that a request on this route may reach, those of its burst after its own."""
    return route.targets if route.burst is None else (*route.targets, *route.burst.targets)


@dataclass(frozen=True, kw_only=True)
class LocalEndpoint:
    """One replica of a model on this cluster; `url` has no path."""

    model: str
    url: str
    api_key: str | None = field(default=None, repr=False)
    """Bearer token that the replica asks for."""


class Readiness(StrEnum):
    """Whether a candidate can take a request now."""

    READY = "ready"
    PROBE = "probe"
    """Was down; one request may try it."""
    DOWN = "is down"
    RESTING = "rests, as the upstream asked"
    EXHAUSTED = "rests, its account is out of money"
    STARTING = "is deployed and has no live replica yet"
    ABSENT = "has no live replica"
    UNSUPPORTED = "does not serve this operation"
    UNCONFIGURED = "has no API key set"


@dataclass(frozen=True, kw_only=True)
class TokenPrice:
    """US dollars for one token. Floats: they rank, and never bill."""

    input_usd: float
    output_usd: float


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a target is, as far as configuration, price list and quality table know.

    Attributes:
        is_external: a request to it leaves this cluster.
        price: None when unknown.
        context_tokens: longest prompt and answer together. 0: unknown.
        max_output_tokens: longest answer. 0: unknown.
        lacks: features of requests that the target is known not to have: tools, vision, schema, reasoning, ...
        quality: score from 0 to 1 by task; the key "" holds the score over all tasks.
        residency: tags of where the data goes.
    """

    is_external: bool = False
    price: TokenPrice | None = None
    context_tokens: int = 0
    max_output_tokens: int = 0
    lacks: tuple[str, ...] = ()
    quality: Mapping[str, float] = field(default_factory=dict)
    residency: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast an address has answered lately.

    Attributes:
        num_seen: answers that the figures are from.
        ttft_p50_s: median time to the first token.
        ttft_p95_s: 95th percentile of it.
        ttft_idle_s: 10th percentile: what it is without a queue.
        tokens_per_s: median speed of one answer after its first token. 0: unknown.
        duration_s: mean time of a whole answer.
    """

    num_seen: int
    ttft_p50_s: float
    ttft_p95_s: float
    ttft_idle_s: float
    tokens_per_s: float
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class EngineLoad:
    """What a replica's engine said when it was last asked.

    Attributes:
        num_running: requests in its batch.
        num_waiting: requests in its queue.
        kv_usage: used share of its KV cache, 0 to 1.
    """

    num_running: int = 0
    num_waiting: int = 0
    kv_usage: float = 0.0


NO_OFFER = Offer()


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One address that could answer for a target.

    Attributes:
        origin: base URL, which is also what health is kept by.
        num_outstanding: requests of this gateway replica under way there.
        num_queued: this address's part of the requests that wait in this gateway replica for the target.
        num_since_poll: change of `num_outstanding` since `engine` was read.
        rest_s: how long until it may be tried again.
        offer: what the target is.
        pace: None when there is no recent answer.
        engine: None when the address is no engine of ours, or has not told lately.
        matched_tokens: tokens at the front of the prompt that the address has probably in its cache.
    """

    target: Target
    origin: str
    readiness: Readiness
    num_outstanding: int = 0
    num_queued: int = 0
    num_since_poll: int = 0
    rest_s: float = 0.0
    offer: Offer = NO_OFFER
    pace: Pace | None = None
    engine: EngineLoad | None = None
    matched_tokens: int = 0

    def __str__(self) -> str:
        return f"{self.target} {self.readiness.value}"


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a request asks of a target; known before it is routed.

    Attributes:
        task: code, chat, extraction, reasoning, search or long_context; empty when not classified.
        input_tokens: estimate. 0: unknown.
        output_tokens: estimate of the answer's length. 0: unknown.
        features: what the target must be able to do: tools, vision, schema, reasoning, ...
        has_budget: the key may still spend on this request.
    """

    task: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    features: tuple[str, ...] = ()
    has_budget: bool = True


NO_NEED = Need()


@dataclass(frozen=True, kw_only=True)
class BurstState:
    """Whether an alias overflows.

    Attributes:
        is_active: some traffic goes to the burst targets.
        calm_since_s: when the home fell below the returning share of its limits. None: it is above.
    """

    is_active: bool = False
    calm_since_s: float | None = None


NO_BURST = BurstState()


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a routing decision depends on.

    Attributes:
        candidates: in the order of the route's targets, those of its burst after them.
        need: what the request asks.
        now_s: monotonic clock.
        turn: rotates among candidates that are otherwise equal.
        draw: random number from 0 to 1, for shares of traffic; the same for all of one conversation if the caller
            names it.
        burst: the alias's state when the request came in.
        is_recovering: a local target had a replica a moment ago.
    """

    route: Route
    candidates: tuple[Candidate, ...]
    need: Need = NO_NEED
    now_s: float = 0.0
    turn: int = 0
    draw: float = 0.0
    burst: BurstState = NO_BURST
    is_recovering: bool = False


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A candidate in its place, and why it stands there."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at one address.

    Attributes:
        is_retry: it asks a target that has failed this request before; it is charged to the retry budget.
        hedge_after_s: when no byte has come for so long, the flow wants to hear of it (`Event.is_slow`).
    """

    target: Target
    origin: str
    reason: str
    is_retry: bool = False
    hedge_after_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Hedge:
    """A second attempt beside one that is slow: the first to send a byte wins, the other is cancelled."""

    attempt: Attempt


@dataclass(frozen=True, kw_only=True)
class Wait:
    """A pause before the world is looked at again."""

    delay_s: float


@dataclass(frozen=True, kw_only=True)
class Skip:
    """A candidate that is not tried, and why."""

    target: Target
    origin: str
    readiness: Readiness
    reason: str
    rest_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.target} {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Where to try, best first, and why.

    Attributes:
        skipped: every candidate that is not tried.
        may_recover: what cannot be tried now is expected back within seconds.
    """

    route: Route
    attempts: tuple[Attempt, ...]
    skipped: tuple[Skip, ...] = ()
    may_recover: bool = False


@dataclass(frozen=True, kw_only=True)
class Event:
    """What came of an `Attempt`, a `Hedge` or a `Wait`.

    Attributes:
        decision: made from the world as it is now.
        failure: how the attempt failed; None after a wait.
        hedge_failure: how the hedge beside it failed; both have then failed.
        is_slow: the attempt is still under way, and silent for its `hedge_after_s`.
        is_committed: bytes of the answer have reached the caller.
        may_retry: the gateway's retry budget has something left.
        now_s: monotonic clock.
        jitter: random number from 0 to 1.
    """

    decision: Decision
    now_s: float
    failure: Failure | None = None
    hedge_failure: Failure | None = None
    is_slow: bool = False
    is_committed: bool = False
    may_retry: bool = True
    jitter: float = 0.5
