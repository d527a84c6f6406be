"""Creates API keys: a random secret for its owner, a digest for the store."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict
from datetime import UTC, datetime

from mlaas.auth.types import ROLES, UNLIMITED, KeyLimits, KeyStore, KeyT_co, is_role
from mlaas.errors import ConfigError

SECRET_PREFIX = "sk-mlaas-"
"""Marks a secret of this platform, for people and for secret scanners."""
SHOWN_CHARACTERS = len(SECRET_PREFIX) + 4
"""How much of a secret is kept in the clear: 4 of 43 random characters leave 232 bits unknown."""


def create_key(
    repository: KeyStore[KeyT_co], *, name: str, tenant: str, role: str, limits: KeyLimits = UNLIMITED
) -> tuple[str, KeyT_co]:
    """Create a key and return its secret, which is shown nowhere again, with the key as stored.

    Args:
        repository: where the key goes.
        name: what its owner calls it.
        tenant: who its requests are accounted to.
        role: what it may do.
        limits: what it may use, as `parse_limits` checked it.

    Raises:
        ConfigError: the role is unknown, or name or tenant is empty or not printable.
        PlatformError: the store cannot be reached.
    """
    if not is_role(role):
        raise ConfigError("bad_role", f"role={role!r} is unknown; use one of {', '.join(ROLES)}")
    for field, value in (("name", name), ("tenant", tenant)):
        if not value.strip() or not value.isprintable():
            raise ConfigError(f"bad_{field}", f"{field}={value!r} is not a name; use printable characters")
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    key = repository.add(
        key_id=f"key-{secrets.token_hex(4)}",
        name=name,
        tenant=tenant,
        role=role,
        digest=digest_secret(secret),
        prefix=secret[:SHOWN_CHARACTERS],
        created_at=datetime.now(UTC),
        **asdict(limits),
    )
    return secret, key


def digest_secret(secret: str) -> str:
    """Return the digest under which a secret is stored.

    A fast unsalted hash suffices: a secret of 256 random bits cannot be guessed from it.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
