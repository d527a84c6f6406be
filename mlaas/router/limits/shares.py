"""What one gateway replica holds of a pool: it takes from it, asks for more, and gives back what lies idle.

Pure but for the state that an object keeps: times come in, and nothing here waits or calls.
"""

from __future__ import annotations

from collections import deque

from mlaas.router.limits.types import TICK_S, Claim, Grant, PoolId
from mlaas.router.limits.windows import Bucket, Window

MEMORY_TICKS = 4
"""For how many ticks, one second of them, a share keeps what it would take to repeat its busiest tick."""


class Share:
    """Units of one pool: a count of those in use, and totals that only grow.

    Attributes:
        limit: size of the whole pool.
        used: units in use.
        unsettled: part of `used` that may come back when requests end.
        need: units that the request waiting longest lacks.
        since_s: when that request came.
        waiting: units that all waiting requests together ask for.
        is_changed: the ledger has not heard of the present state.
    """

    def __init__(self, pool: PoolId, *, limit: int) -> None:
        self.pool = pool
        self.limit = limit
        self.granted = 0
        self.returned = 0
        self.used = 0
        self.spent = 0
        self.unsettled = 0
        self.need = 0
        self.since_s = 0.0
        self.waiting = 0
        self.is_changed = False
        self._is_sent = False
        self._returned_sent = self._returned_heard = 0
        self.outlook: Grant | None = None
        self.outlook_s = float("-inf")
        self._recalled_until_s = float("-inf")
        self._taken = 0
        self._taken_before: deque[int] = deque(maxlen=MEMORY_TICKS)

    def resize(self, limit: int) -> None:
        """Note the pool's size; of another size than before, nothing is known until the ledger is heard."""
        if limit != self.limit:
            self.limit = limit
            self.outlook_s = float("-inf")

    def idle(self, now_s: float) -> int:
        """Return how many units can be taken now; negative when more is in use than is held."""
        return self.granted - self.returned - self.used

    def take(self, units: int, *, now_s: float) -> Bucket | None:
        """Use units, and return what `settle` finds them by. The caller has looked that they are idle."""
        self.used += units
        self._taken += units
        self.is_changed = True
        return None

    def settle(self, taken: int, actual: int, *, bucket: Bucket | None, now_s: float) -> None:
        """End the use of units of which `actual` were used indeed."""
        raise NotImplementedError

    def frees_in_s(self, units: int, *, now_s: float) -> float | None:
        """Return when so many units in use will be idle by themselves; None: never, or nobody knows."""
        return None

    def empties_in_s(self, *, now_s: float) -> float:
        """Return when all units in use will be idle by themselves."""
        return 0.0

    def reachable(self, now_s: float, *, since_s: float) -> int | None:
        """Return the units that a request may still get: idle, free, or held elsewhere and coming back.

        None: it is not known, because nothing was heard since `since_s`, nor within the last tick.
        """
        if self.outlook is None or self.outlook_s < min(since_s, now_s - TICK_S) or self.outlook.is_listening:
            return None
        return self.expected(now_s)

    def expected(self, now_s: float) -> int:
        """Return the units that a request may still get, by what was heard last."""
        coming = 0 if self.outlook is None else self.outlook.coming
        return self.present(now_s) + coming + self.unsettled + self.returned - self._returned_heard

    def present(self, now_s: float) -> int:
        """Return the units that a request can get without waiting: idle ones, and those that nobody holds."""
        return self.idle(now_s) + (0 if self.outlook is None else self.outlook.free)

    def tick(self) -> None:
        """Remember what was taken since the last tick."""
        self._taken_before.append(self._taken)
        self._taken = 0

    def shed(self, now_s: float) -> None:
        """Give back what the next second will not need; when recalled, all that is idle."""
        idle, is_recalled = self.idle(now_s), self.is_recalled(now_s)
        kept = 0 if is_recalled else self.waiting + self._target
        if idle > (kept if is_recalled else 2 * kept):
            self.give_back(idle - kept)

    def give_back(self, units: int) -> None:
        """Return units to the pool."""
        self.returned += units
        self.is_changed = True

    def recall(self, *, until_s: float) -> None:
        """Keep no idle units until then: another replica waits for some. A time that is past ends a recall."""
        self._recalled_until_s = until_s

    def is_recalled(self, now_s: float) -> bool:
        """Tell whether what is idle goes to another replica first."""
        return now_s < self._recalled_until_s

    def claim(self, now_s: float) -> Claim | None:
        """Return what the ledger is to be told; None when there is nothing new."""
        idle = self.idle(now_s)
        extra = 0
        if not self.is_recalled(now_s):
            wanted = self.waiting + max(self._target, self.need)
            extra = wanted - idle - self.need if self.need or 2 * idle < wanted else 0
        if not (self.is_changed or self.need or extra > 0):
            return None
        self.is_changed, self._is_sent = False, True
        self._returned_sent = self.returned
        return Claim(
            pool=self.pool,
            limit=self.limit,
            granted=self.granted,
            returned=self.returned,
            used=self.used,
            spent=self.spent,
            unsettled=self.unsettled,
            need=self.need,
            since_s=self.since_s,
            extra=max(0, extra),
            frees_in_s=self.frees_in_s(1, now_s=now_s),
        )

    def unsend(self) -> None:
        """Tell the last claim again: the ledger may not have heard it."""
        self.is_changed, self._is_sent = True, False

    def apply(self, grant: Grant, *, sent_s: float) -> None:
        """Take over the ledger's answer to a claim that was sent at `sent_s`."""
        self._is_sent = False
        self.granted = grant.granted
        self._returned_heard = self._returned_sent
        self.outlook = grant
        self.outlook_s = sent_s

    def is_quiet(self, now_s: float) -> bool:
        """Whether nothing is held or in use, and the ledger knows it."""
        return self._is_told and self.idle(now_s) == 0 == self.used

    @property
    def _is_told(self) -> bool:
        return not (self.is_changed or self._is_sent or self.waiting or self.unsettled)

    @property
    def _target(self) -> int:
        return max((self._taken, *self._taken_before))


class RateShare(Share):
    """Requests or tokens: a unit is in use for the length of the window."""

    def __init__(self, pool: PoolId, *, limit: int, span_s: float) -> None:
        super().__init__(pool, limit=limit)
        self._window = Window(span_s=span_s)

    def idle(self, now_s: float) -> int:
        """Return how many units can be taken now."""
        self._window.advance(now_s)
        self.used = self._window.used
        return self.granted - self.returned - self.used

    def take(self, units: int, *, now_s: float) -> Bucket:
        """Use units for the length of the window."""
        bucket = self._window.add(units, now_s=now_s)
        self.used = self._window.used
        self._taken += units
        self.is_changed = True
        return bucket

    def settle(self, taken: int, actual: int, *, bucket: Bucket | None, now_s: float) -> None:
        """Correct how many units were used; a request that has ended still counts for the length of the window."""
        if bucket is not None and actual != taken:
            self._window.advance(now_s)
            self._window.correct(bucket, actual - taken, now_s=now_s)
            self.used = self._window.used
            self.is_changed = True

    def frees_in_s(self, units: int, *, now_s: float) -> float | None:
        """Return when so many units will have left the window."""
        return self._window.frees_in_s(units, now_s=now_s)

    def empties_in_s(self, *, now_s: float) -> float:
        """Return when the window will be empty."""
        return self._window.empties_in_s(now_s=now_s)


class TokenShare(RateShare):
    """Tokens: what is taken is a bound, and what was not used comes back when the request ends."""

    def take(self, units: int, *, now_s: float) -> Bucket:
        """Use units for the length of the window."""
        self.unsettled += units
        return super().take(units, now_s=now_s)

    def settle(self, taken: int, actual: int, *, bucket: Bucket | None, now_s: float) -> None:
        """Correct how many units were used."""
        self.unsettled -= taken
        super().settle(taken, actual, bucket=bucket, now_s=now_s)


class SlotShare(Share):
    """Concurrency: a unit is in use until its request ends."""

    def take(self, units: int, *, now_s: float) -> None:
        """Use slots."""
        self.unsettled += units
        super().take(units, now_s=now_s)

    def settle(self, taken: int, actual: int, *, bucket: Bucket | None, now_s: float) -> None:
        """Free the slots."""
        self.unsettled -= taken
        self.used -= taken
        self.is_changed = True


class BudgetShare(Share):
    """Money: a unit is reserved until its request ends, and what is spent then never comes back.

    Attributes:
        ends_s: when the budget's period ends, in seconds since 1970.
    """

    def __init__(self, pool: PoolId, *, limit: int, ends_s: float) -> None:
        super().__init__(pool, limit=limit)
        self.ends_s = ends_s

    def take(self, units: int, *, now_s: float) -> None:
        """Reserve money."""
        self.unsettled += units
        super().take(units, now_s=now_s)

    def settle(self, taken: int, actual: int, *, bucket: Bucket | None, now_s: float) -> None:
        """Book what was spent, and free the rest."""
        self.unsettled -= taken
        self.used += actual - taken
        self.spent += actual
        self.is_changed = True

    def is_quiet(self, now_s: float) -> bool:
        """Whether all that was granted is spent or given back, no request is under way, and the ledger knows it."""
        return self._is_told and self.granted == self.returned + self.spent
