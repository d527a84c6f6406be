"""How the ledger divides a pool among replicas.

Pure: a pool, a claim and the time go in; the next pool and a grant come out. The one invariant: what replicas hold,
together, never exceeds the limit by what the ledger does. (It may when the limit is lowered, or when a replica has
used more than it held, as a request that cost more than its bound; then nothing is granted until it fits again.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from mlaas.router.limits.types import Claim, Grant

PATIENCE_S = 1.0
"""How long a replica that could not be given what it needs keeps its place in the line without asking again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One replica's share of a pool, as the ledger knows it; the fields are those of its last claim."""

    granted: int = 0
    returned: int = 0
    used: int = 0
    spent: int = 0
    unsettled: int = 0
    frees_s: float | None = None

    @property
    def held(self) -> int:
        """Units that are the replica's."""
        return self.granted - self.returned

    @property
    def coming(self) -> int:
        """Units that the replica may give back soon."""
        return max(0, self.held - self.used) + self.unsettled


@dataclass(frozen=True, slots=True)
class Place:
    """A replica that waits in line for units, for the request that came at `since_s` by its own clock."""

    need: int
    since_s: float
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The shares of a pool, and the replicas that wait for more, first come first."""

    leases: Mapping[str, Lease] = field(default_factory=dict)
    line: Mapping[str, Place] = field(default_factory=dict)

    @property
    def held(self) -> int:
        """Units that replicas hold, together."""
        return sum(lease.held for lease in self.leases.values())


def exchange(
    pool: Pool, claim: Claim, *, replica_id: str, live: Collection[str], now_s: float, is_listening: bool = False
) -> tuple[Pool, Grant]:
    """Book what a replica claims, and grant what it needs if there is as much.

    What a replica needs it gets whole or not at all. What it would like beyond that is cut to a part of what is left,
    half of it shared by the replicas: so chunks shrink as the pool runs dry, and the last units stay where all can ask.

    Args:
        pool: the pool before.
        claim: what the replica says.
        replica_id: who says it.
        live: replicas that have a lease; what others hold will not come back soon.
        now_s: the ledger's clock.
        is_listening: the ledger is young: it believes what replicas say they hold, and grants nothing.
    """
    lease = _book(pool.leases.get(replica_id), claim, now_s=now_s, is_listening=is_listening)
    leases = {**pool.leases, replica_id: lease}
    line = {
        waiting: place
        for waiting, place in pool.line.items()
        if place.until_s > now_s and not (waiting == replica_id and place.since_s != claim.since_s)
    }
    free = claim.limit - sum(each.held for each in leases.values())
    if not is_listening:
        available = free - _ahead(line, replica_id)
        units = 0
        if claim.need <= available:
            share = max(0, available - claim.need) // (2 * max(1, len(live)))
            units = claim.need + min(claim.extra, share)
        if claim.need and not units:
            line[replica_id] = Place(claim.need, claim.since_s, now_s + PATIENCE_S)
        else:
            line.pop(replica_id, None)
        leases[replica_id] = lease = replace(lease, granted=lease.granted + units)
        free -= units
    others = [each for name, each in leases.items() if name != replica_id and name in live]
    frees_s = min((each.frees_s for each in (*others, lease) if each.frees_s is not None), default=None)
    grant = Grant(
        pool=claim.pool,
        granted=lease.granted,
        free=max(0, free - _ahead(line, replica_id)),
        coming=sum(each.coming for each in others) + max(0, min(free, _ahead(line, replica_id))),
        frees_in_s=None if frees_s is None else max(0.0, frees_s - now_s),
        is_listening=is_listening,
    )
    return Pool(leases=leases, line=line), grant


def forget(pool: Pool, replica_id: str) -> Pool:
    """Take back what a replica held."""
    return Pool(
        leases={name: lease for name, lease in pool.leases.items() if name != replica_id},
        line={name: place for name, place in pool.line.items() if name != replica_id},
    )


def is_recalled(pool: Pool, replica_id: str, *, now_s: float) -> bool:
    """Tell whether the replica has to give back what it does not use: another one is first in line."""
    waiting = (name for name, place in pool.line.items() if place.until_s > now_s)
    return next(waiting, replica_id) != replica_id


def _book(lease: Lease | None, claim: Claim, *, now_s: float, is_listening: bool) -> Lease:
    """Return the replica's lease after its claim.

    A ledger that does not know the lease believes all of the claim while it listens. Later the lease has run out
    and its units may be another's: then only what is in use is still the replica's.
    """
    if lease is None:
        lease = Lease(granted=claim.granted if is_listening else 0)
    returned = max(lease.returned, claim.returned)
    return Lease(
        granted=max(lease.granted, returned + claim.used),
        returned=returned,
        used=claim.used,
        spent=max(lease.spent, claim.spent),
        unsettled=claim.unsettled,
        frees_s=None if claim.frees_in_s is None else now_s + claim.frees_in_s,
    )


def _ahead(line: Mapping[str, Place], replica_id: str) -> int:
    """Return what those need who came before the replica."""
    needed = 0
    for waiting, place in line.items():
        if waiting == replica_id:
            break
        needed += place.need
    return needed
