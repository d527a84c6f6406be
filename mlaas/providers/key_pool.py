"""Several keys of one provider: each serves its share, and one that is refused rests while the others serve.

Smooth weighted choice: at each pick every key gains its weight, and the one that has gained the most serves and pays
the sum of the weights. So shares are exact over any stretch of picks and never come in bursts.
Source: nginx, `ngx_http_upstream_get_peer`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from mlaas.providers.base import Failure, FailureKind, ProviderFailed

REST_S: Final = {FailureKind.DENIED: 60.0, FailureKind.QUOTA: 300.0, FailureKind.OVERLOADED: 1.0}
"""How long a key rests, in seconds, after a failure that is its own and does not say how long to wait."""

_OF_THE_KEY: Final = frozenset({401, 402, 429})
_REFUSED_KEY: Final = 502
"""What `failures` makes of an upstream's 401."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyState:
    """One key as the pool sees it.

    Attributes:
        weight: its share against the other keys' weights.
        gained: weight gained and not yet paid.
        rests_until_s: monotonic clock; minus infinity when it never rested.
        failure: why it rests.
    """

    weight: float
    gained: float = 0.0
    rests_until_s: float = -math.inf
    failure: Failure | None = None


def choose_key(keys: Sequence[KeyState], now_s: float) -> tuple[int, tuple[KeyState, ...]]:
    """Return the key whose turn it is among those that do not rest, and the keys after its turn.

    Raises:
        ProviderFailed: all rest; it carries why the first of them to come back does, and when that is.
    """
    awake = [index for index, key in enumerate(keys) if key.rests_until_s <= now_s]
    if not awake:
        soonest = min(keys, key=lambda key: key.rests_until_s)
        assert soonest.failure is not None  # only a failure makes a key rest
        raise ProviderFailed(replace(soonest.failure, retry_after_s=soonest.rests_until_s - now_s))
    total = sum(keys[index].weight for index in awake)
    gained = {index: keys[index].gained + keys[index].weight for index in awake}
    chosen = max(awake, key=lambda index: gained[index])
    gained[chosen] -= total
    return chosen, tuple(
        replace(key, gained=gained[index]) if index in gained else key for index, key in enumerate(keys)
    )


def rest_key(key: KeyState, failure: Failure, now_s: float) -> KeyState:
    """Return a key after a failure: it rests for as long as it is asked to, when the failure is the key's own.

    An upstream that is overloaded as a whole (503, 529) or knows no such model (404) says nothing about the key.
    """
    is_own = failure.status in _OF_THE_KEY or (failure.kind is FailureKind.DENIED and failure.status == _REFUSED_KEY)
    if not is_own or failure.kind not in REST_S:
        return key
    wait_s = REST_S[failure.kind] if failure.retry_after_s is None else failure.retry_after_s
    return replace(key, rests_until_s=max(key.rests_until_s, now_s + wait_s), failure=failure)


class KeyPool:
    """The keys of one provider.

    Args:
        weights: one for each key, more than zero.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._keys = tuple(KeyState(weight=weight) for weight in weights)

    def pick(self, now_s: float) -> int:
        """Return the index of the key to use.

        Raises:
            ProviderFailed: every key rests.
        """
        chosen, self._keys = choose_key(self._keys, now_s)
        return chosen

    def report(self, index: int, failure: Failure, now_s: float) -> bool:
        """Take note of how a request with a key failed, and tell whether that is the key's own: then it rests."""
        key = self._keys[index]
        rested = rest_key(key, failure, now_s)
        self._keys = (*self._keys[:index], rested, *self._keys[index + 1 :])
        return rested is not key

    def is_awake(self, now_s: float) -> bool:
        """Return whether there is a key to use."""
        return any(key.rests_until_s <= now_s for key in self._keys)
