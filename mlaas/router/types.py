"""The router's vocabulary: frozen values that decisions are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mlaas.providers.base import Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One model of one provider, written `provider/model`."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class RoutingPolicy(StrEnum):
    """How an alias chooses among its targets."""

    FAILOVER = "failover"
    """The first target that is up, in the order written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """What a model name stands for: an alias's targets, or the one target it names."""

    model: str
    targets: tuple[Target, ...]
    policy: RoutingPolicy = RoutingPolicy.FAILOVER
    is_alias: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
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
    STARTING = "is deployed and has no live replica yet"
    ABSENT = "has no live replica"
    UNSUPPORTED = "does not serve this operation"
    UNCONFIGURED = "has no API key set"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One address that could answer for a target.

    Attributes:
        origin: base URL, which is also what health is kept by.
        num_outstanding: requests of this gateway replica under way there.
    """

    target: Target
    origin: str
    readiness: Readiness
    num_outstanding: int = 0

    def __str__(self) -> str:
        return f"{self.target} {self.readiness.value}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All that a routing decision depends on.

    Attributes:
        candidates: in the order of the route's targets.
        turn: rotates among candidates that are otherwise equal.
        is_recovering: a local target had a replica a moment ago.
    """

    route: Route
    candidates: tuple[Candidate, ...]
    turn: int = 0
    is_recovering: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try at one address."""

    target: Target
    origin: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """A pause before the world is looked at again."""

    delay_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Where to try, best first, and why.

    Attributes:
        skipped: one candidate of each target that cannot be tried; its readiness says why.
        may_recover: what cannot be tried now is expected back within seconds.
    """

    route: Route
    attempts: tuple[Attempt, ...]
    skipped: tuple[Candidate, ...] = ()
    may_recover: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What came of an `Attempt` or a `Wait`.

    Attributes:
        decision: made from the world as it is now.
        failure: how the attempt failed; None after a wait.
        is_committed: bytes of the answer have reached the caller.
        now_s: monotonic clock.
        jitter: random number from 0 to 1.
    """

    decision: Decision
    now_s: float
    failure: Failure | None = None
    is_committed: bool = False
    jitter: float = 0.5
