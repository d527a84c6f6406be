"""The vocabulary of authentication: roles, principals, and what is asked of whoever stores keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol, TypeGuard, TypeVar, get_args

Role = Literal["admin", "user"]
"""`user` talks to models; `admin` also operates the platform."""

ROLES: tuple[Role, ...] = get_args(Role)


def is_role(text: str) -> TypeGuard[Role]:
    """Tell whether the text names a role of this version."""
    return text in ROLES


BudgetPeriod = Literal["day", "month"]
"""How long a budget lasts: a day or a month, in UTC."""

BUDGET_PERIODS: tuple[BudgetPeriod, ...] = get_args(BudgetPeriod)


def is_budget_period(text: str | None) -> TypeGuard[BudgetPeriod]:
    """Tell whether the text names a period of this version."""
    return text in BUDGET_PERIODS


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyLimits:
    """What a key may use. None: no limit."""

    models: tuple[str, ...] | None = None
    """Models and aliases by the names that requests ask for."""
    rpm: int | None = None
    """Requests in any 60 seconds."""
    tpm: int | None = None
    """Tokens in any 60 seconds, of input and output."""
    concurrency: int | None = None
    """Requests under way at one time."""
    budget_usd: Decimal | None = None
    """What may be spent in one period."""
    budget_per: BudgetPeriod | None = None
    """The period; None exactly when there is no budget."""
    priority: int = 0
    """Who goes first when requests wait: the higher one."""

    @property
    def is_metered(self) -> bool:
        """Whether requests of the key have to be counted."""
        return not (self.rpm is None and self.tpm is None and self.concurrency is None and self.budget_usd is None)


UNLIMITED = KeyLimits()


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who a request comes from."""

    key_id: str
    tenant: str
    role: Role
    limits: KeyLimits = UNLIMITED


class StoredKey(Protocol):
    """A key as its store returns it, as far as authentication reads it."""

    @property
    def id(self) -> str:
        """Public name of the key."""

    @property
    def tenant(self) -> str:
        """Who the key's requests are accounted to."""

    @property
    def role(self) -> str:
        """What the key may do."""

    @property
    def digest(self) -> str:
        """SHA-256 of the secret, in hex."""

    @property
    def revoked_at(self) -> datetime | None:
        """End of the key; None while it is in force."""

    @property
    def models(self) -> tuple[str, ...] | None:
        """As in `KeyLimits`."""

    @property
    def rpm(self) -> int | None:
        """As in `KeyLimits`."""

    @property
    def tpm(self) -> int | None:
        """As in `KeyLimits`."""

    @property
    def concurrency(self) -> int | None:
        """As in `KeyLimits`."""

    @property
    def budget_usd(self) -> Decimal | None:
        """As in `KeyLimits`."""

    @property
    def budget_per(self) -> str | None:
        """As in `KeyLimits`."""

    @property
    def priority(self) -> int:
        """As in `KeyLimits`."""


class KeySource(Protocol):
    """Where the known keys come from."""

    def list(self) -> Sequence[StoredKey]:
        """Return all keys, revoked ones too."""


KeyT_co = TypeVar("KeyT_co", covariant=True)


class KeyStore(Protocol[KeyT_co]):
    """Where a new key goes."""

    def add(
        self,
        *,
        key_id: str,
        name: str,
        tenant: str,
        role: str,
        digest: str,
        prefix: str,
        created_at: datetime,
        models: tuple[str, ...] | None,
        rpm: int | None,
        tpm: int | None,
        concurrency: int | None,
        budget_usd: Decimal | None,
        budget_per: str | None,
        priority: int,
    ) -> KeyT_co:
        """Store a new key and return it as stored."""
