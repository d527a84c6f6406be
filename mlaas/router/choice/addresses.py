"""What is known of each address: its health, the requests under way there, and how fast it has answered lately.

What is known of an external address is known twice: of its host, which refuses connections or whose account is out of
money, and of each model there, which may fail or be overloaded alone. A local replica is one address.
"""

from __future__ import annotations

from typing import NamedTuple

from mlaas.providers.base import Failure, FailureKind
from mlaas.providers.vllm import LOCAL
from mlaas.router.choice.health import UP, Health, Sign, readiness, rest, step
from mlaas.router.choice.stats import Paces
from mlaas.router.types import Pace, Readiness, Target

_MAX_KEPT = 4096
_CAN_TRY = (Readiness.READY, Readiness.PROBE)


class AddressState(NamedTuple):
    """An address that is not ready, for metrics.

    Attributes:
        name: base URL, or `provider/model` where the state is of that model alone.
        error_rate: moving average of failures.
    """

    name: str
    readiness: Readiness
    error_rate: float


class Addresses:
    """State by address; bounded, since callers choose the model names behind `provider/`.

    An account without money is kept by the provider's name: another provider may be another account at the same URL.
    """

    def __init__(self) -> None:
        self._health: dict[str, Health] = {}
        self._num_outstanding: dict[str, int] = {}
        self._paces = Paces()

    def state(self, origin: str, model: str, *, now_s: float) -> tuple[Readiness, float]:
        """Return whether an address can take a request, and how long it still rests.

        Args:
            origin: base URL.
            model: `provider/model`; empty for a local replica.
            now_s: monotonic clock.
        """
        if not self._health:
            return Readiness.READY, 0.0
        state = self._state(origin, now_s)
        for key in (model.partition("/")[0], model) if model else ():
            if state[0] not in _CAN_TRY:
                break
            of_key = self._state(key, now_s)
            state = state if of_key[0] is Readiness.READY else of_key
        return state

    def num_outstanding(self, address: str) -> int:
        """Return the requests under way at a replica's base URL, or at `provider/model`."""
        return self._num_outstanding.get(address, 0)

    def pace(self, address: str, *, now_s: float) -> Pace | None:
        """Return the pace of a replica's base URL, or of `provider/model`."""
        return self._paces.pace(address, now_s=now_s)

    def sent(self, origin: str, target: Target | None, *, now_s: float) -> None:
        """Count a request that goes out."""
        for key in _keys(origin, target):
            self._num_outstanding[key] = self._num_outstanding.get(key, 0) + 1
            self._apply(key, Sign.SENT, now_s)

    def ended(self, origin: str, target: Target | None, sign: Sign, failure: Failure | None, *, now_s: float) -> None:
        """Count a request as over, with what it says, unless the address has gone meanwhile."""
        keys = _keys(origin, target)
        for key in keys:
            num = self._num_outstanding.get(key, 0)
            if not num:
                continue
            if num > 1:
                self._num_outstanding[key] = num - 1
            else:
                del self._num_outstanding[key]
            is_of_another = sign is Sign.FAILED and key is not keys[-1]
            self._apply(key, Sign.UNKNOWN if is_of_another else sign, now_s)
        if failure is not None:
            key = target.provider if target is not None and failure.kind is FailureKind.QUOTA else keys[-1]
            self._keep(key, rest(self._health.get(key, UP), failure, now_s=now_s))

    def observe(
        self, origin: str, target: Target, *, ttft_s: float | None, duration_s: float, output_tokens: int, now_s: float
    ) -> None:
        """Take the timing of an answer that came to its end."""
        key = _keys(origin, target)[-1]
        self._paces.observe(key, ttft_s=ttft_s, duration_s=duration_s, output_tokens=output_tokens, now_s=now_s)

    def forget(self, origin: str) -> None:
        """Drop a replica that has gone."""
        self._health.pop(origin, None)
        self._num_outstanding.pop(origin, None)
        self._paces.forget(origin)

    def unwell(self, *, now_s: float) -> list[AddressState]:
        """Return the addresses that are not ready."""
        states = ((key, readiness(health, now_s=now_s), health) for key, health in self._health.items())
        return [
            AddressState(name=key, readiness=state, error_rate=health.error_rate)
            for key, state, health in states
            if state is not Readiness.READY
        ]

    def _state(self, key: str, now_s: float) -> tuple[Readiness, float]:
        health = self._health.get(key)
        if health is None:
            return Readiness.READY, 0.0
        return readiness(health, now_s=now_s), max(0.0, health.rest_until_s - now_s)

    def _apply(self, key: str, sign: Sign, now_s: float) -> None:
        health = self._health.get(key)
        if health is not None or sign in (Sign.REFUSED, Sign.FAILED):
            self._keep(key, step(health or UP, sign, now_s=now_s))

    def _keep(self, key: str, health: Health) -> None:
        if health == UP:
            self._health.pop(key, None)
            return
        self._health[key] = health
        if len(self._health) > _MAX_KEPT:
            del self._health[next(iter(self._health))]


def _keys(origin: str, target: Target | None) -> tuple[str, ...]:
    """Return what an address's state is kept by: its origin, and for an external one the model there as well."""
    return (origin,) if target is None or target.provider == LOCAL else (origin, str(target))
