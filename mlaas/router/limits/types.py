"""The vocabulary of limits: pools, and the messages between a gateway replica and the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

WINDOW_S = 60.0
"""The window of requests and tokens."""
LEASE_S = 5.0
"""How long shares of rates and concurrency stay usable after the last exchange with the ledger."""
TICK_S = 0.25
"""Time between two exchanges of a replica that has nothing urgent."""


class Resource(StrEnum):
    """What is limited, by the name that `mlaas keys create` gives the limit."""

    REQUESTS = "rpm"
    TOKENS = "tpm"
    CONCURRENCY = "concurrency"
    BUDGET = "budget_usd"


RATES = frozenset({Resource.REQUESTS, Resource.TOKENS})


@dataclass(frozen=True, slots=True)
class PoolId:
    """One limit of one key; a budget is one pool in each period."""

    key_id: str
    resource: Resource
    period: str = ""
    """Of a budget: `2026-11-23` or `2026-11`. Empty for what is not a budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a replica says of its share of a pool. Counts are totals since the share began, or states; never changes.

    Attributes:
        limit: size of the pool, as the key has it now.
        granted: what the ledger has granted, as far as the replica has heard.
        returned: what the replica has given back.
        used: units in use: in the window, under way, or spent and reserved.
        spent: of a budget: what is spent for good.
        unsettled: part of `used` that may come back when requests end.
        need: units that a request waits for now; all of them or none.
        since_s: when that request came, on the replica's clock: another one than before goes to the end of the line.
        extra: units that would be good to have.
        frees_in_s: when the first unit of the window is usable again; None: none is in use.
    """

    pool: PoolId
    limit: int
    granted: int = 0
    returned: int = 0
    used: int = 0
    spent: int = 0
    unsettled: int = 0
    need: int = 0
    since_s: float = 0.0
    extra: int = 0
    frees_in_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the ledger answers to a claim.

    Attributes:
        granted: all that this replica was ever granted of the pool; takes the place of what it knew.
        free: units that nobody holds and nobody waits for.
        coming: units that may yet be had: those that others hold idle or for requests under way, or wait for.
        frees_in_s: when the first unit of the window is usable again at some replica; None: none is in use.
        is_listening: the ledger is young and grants nothing yet.
    """

    pool: PoolId
    granted: int
    free: int
    coming: int
    frees_in_s: float | None = None
    is_listening: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One message of a replica to a shard of the ledger.

    Attributes:
        replica_id: unique to the process.
        sequence: grows with each report of the replica, so that one that was overtaken is known.
    """

    replica_id: str
    sequence: int
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The ledger's answer to a report.

    Attributes:
        session: another one than in the last reply: the replica's lease has run out meanwhile, or the ledger's process
            is new; then the ledger knows nothing of the shares that this report did not name.
        grants: one for each claim, in their order.
        recalls: pools of which another replica waits for units that this one may hold idle.
    """

    session: str
    grants: tuple[Grant, ...]
    recalls: tuple[PoolId, ...] = ()
