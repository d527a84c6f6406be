"""The vocabulary of arbitration. Everything here is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mlaas.errors import ConfigError
from mlaas.scheduler.types import DEFAULT_QUEUE, Resources

DEFAULT_HOLD_S = 60.0
"""How long less must do before replicas are given back: a burst that pauses for a minute finds them warm."""
DEFAULT_COLD_START_S = 60.0
"""What a replica takes from its machine to its first answer, until one has been measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a deployment may take of the cluster, and the service that it owes.

    Raises:
        ConfigError: the floor is below 1 or above the ceiling, or a bound is not positive.
    """

    name: str
    version: int
    """Version of the model; replicas of another one go once this one's floor is up."""
    worker: Resources
    """What each replica needs."""
    queue: str = DEFAULT_QUEUE
    """Whose quota its replicas use."""
    floor: int
    """Replicas that it keeps whatever the load."""
    ceiling: int
    """Replicas that it never exceeds."""
    ttft_slo_s: float | None = None
    """95th percentile of the time to the first token that callers are owed; None: the queue alone tells."""
    queue_slo: float = 4.0
    """Requests that may wait for each replica."""
    hold_s: float = DEFAULT_HOLD_S

    def __post_init__(self) -> None:
        if not 1 <= self.floor <= self.ceiling:
            message = f"deployment {self.name}: {self.floor}..{self.ceiling} replicas; it is 1 <= floor <= ceiling"
            raise ConfigError("bad_share", message)
        for field, value in (("ttft_slo_s", self.ttft_slo_s), ("queue_slo", self.queue_slo), ("hold_s", self.hold_s)):
            if value is not None and not 0 < value < float("inf"):
                message = f"deployment {self.name}: {field} is {value}; it is a finite number above 0"
                raise ConfigError("bad_share", message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What was last seen of a deployment."""

    num_ready: int
    """Replicas that answer."""
    num_needed: int
    """Replicas that would take every request without a queue, by the router's count."""
    num_waiting: int = 0
    """Requests that wait, in engines and in gateways."""
    num_running: int = 0
    """Requests that engines work on."""
    ttft_p95_s: float | None = None
    """None: nothing was answered lately."""


class ReplicaState(StrEnum):
    """How far a replica is on Ray Serve."""

    STARTING = "starting"
    """It does not answer yet, or is being stopped."""
    READY = "ready"
    FAILED = "failed"
    """It does not come up, and Ray Serve has stopped trying."""


class WishCode(StrEnum):
    """Why a deployment is wished as many replicas as it is."""

    STEADY = "steady"
    """What it has is what it needs."""
    DEMAND = "demand"
    """More requests come than its replicas take."""
    QUEUE = "queue"
    """More requests wait than its SLO allows."""
    TTFT = "ttft"
    """First tokens come later than its SLO allows."""
    HOLD = "hold"
    """It needs less, and has not for long enough."""
    CALM = "calm"
    """It has needed less for its hold time."""
    BOUNDS = "bounds"
    """Floor or ceiling have moved."""
    BLIND = "blind"
    """The router does not answer: it keeps what it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How many replicas a deployment should have, and what the next decision must remember."""

    name: str
    num_replicas: int
    code: WishCode
    reason: str
    """For people, with the figures that it rests on."""
    calm_since_s: float | None = None
    """Since when fewer replicas would have done; None: they would not."""
    calm_peak: int = 0
    """The most that were needed since then: what is kept when the hold ends."""
    raised_s: float | None = None
    """When it was last raised; None: not that we know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareState:
    """One deployment at one moment."""

    share: Share
    load: Load | None
    """None: the router does not answer."""
    last: Wish | None = None
    """The wish before; None: there was none yet, and it starts at its floor."""
    cold_start_s: float = DEFAULT_COLD_START_S
    """What its replicas took to start, lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareSnapshot:
    """All deployments that share the cluster, at one moment."""

    now_s: float
    """Of a clock that does not jump."""
    deployments: tuple[ShareState, ...]
