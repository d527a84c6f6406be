"""The vocabulary of authentication: roles, principals, and what is asked of whoever stores keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeGuard, TypeVar, get_args

Role = Literal["admin", "user"]
"""`user` talks to models; `admin` also operates the platform."""

ROLES: tuple[Role, ...] = get_args(Role)


def is_role(text: str) -> TypeGuard[Role]:
    """Tell whether the text names a role of this version."""
    return text in ROLES


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who a request comes from."""

    key_id: str
    tenant: str
    role: Role


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


class KeySource(Protocol):
    """Where the known keys come from."""

    def list(self) -> Sequence[StoredKey]:
        """Return all keys, revoked ones too."""


KeyT_co = TypeVar("KeyT_co", covariant=True)


class KeyStore(Protocol[KeyT_co]):
    """Where a new key goes."""

    def add(
        self, *, key_id: str, name: str, tenant: str, role: str, digest: str, prefix: str, created_at: datetime
    ) -> KeyT_co:
        """Store a new key and return it as stored."""
