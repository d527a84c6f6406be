"""API keys, by the digest of their secret. The secret itself is never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from mlaas.errors import Conflict, NotFound
from mlaas.store.engine import transaction
from mlaas.store.tables import api_keys


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is known about one API key."""

    id: str
    """Public name of the key, as revoke takes it."""
    name: str
    """What its owner calls it."""
    tenant: str
    """Who the key's requests are accounted to."""
    role: str
    """What the key may do; `mlaas.auth.types` lists the roles."""
    digest: str
    """SHA-256 of the secret, in hex."""
    prefix: str
    """First characters of the secret, enough to recognise it and useless to guess it."""
    created_at: datetime
    revoked_at: datetime | None = None
    """None: the key is in force."""
    models: tuple[str, ...] | None = None
    """Models and aliases that it may use; None: all of them."""
    rpm: int | None = None
    """Requests in any 60 seconds; None, here and below: no limit."""
    tpm: int | None = None
    """Tokens in any 60 seconds."""
    concurrency: int | None = None
    """Requests under way at one time."""
    budget_usd: Decimal | None = None
    """What it may spend in one period."""
    budget_per: str | None = None
    """The period: `day` or `month`, in UTC."""
    priority: int = 0
    """Who goes first when requests wait: the higher one."""


class KeyRepository:
    """The API keys of the store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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
        models: tuple[str, ...] | None = None,
        rpm: int | None = None,
        tpm: int | None = None,
        concurrency: int | None = None,
        budget_usd: Decimal | None = None,
        budget_per: str | None = None,
        priority: int = 0,
    ) -> ApiKey:
        """Store a new key and return it.

        Raises:
            Conflict: the id or the digest is taken.
            PlatformError: the store cannot be reached.
        """
        key = ApiKey(
            id=key_id,
            name=name,
            tenant=tenant,
            role=role,
            digest=digest,
            prefix=prefix,
            created_at=created_at,
            models=models,
            rpm=rpm,
            tpm=tpm,
            concurrency=concurrency,
            budget_usd=budget_usd,
            budget_per=budget_per,
            priority=priority,
        )
        with transaction(self._engine) as connection:
            try:
                connection.execute(insert(api_keys).values(asdict(key)))
            except IntegrityError as error:
                raise Conflict("key_exists", f"API key {key_id} exists already; create another one") from error
        return key

    def list(self) -> Sequence[ApiKey]:
        """Return all keys, revoked ones too, oldest first.

        Raises:
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)).all()
        return [_key(row) for row in rows]

    def revoke(self, key_id: str) -> ApiKey:
        """End a key for good and return it. A key that is revoked already keeps its first time of revocation.

        Raises:
            NotFound: no key has this id.
            PlatformError: the store cannot be reached.
        """
        revoked_at = func.coalesce(api_keys.c.revoked_at, datetime.now(UTC))
        statement = update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=revoked_at).returning(api_keys)
        with transaction(self._engine) as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise NotFound("key_not_found", f"no API key has the id {key_id!r}; `mlaas keys list` shows the ids")
        return _key(row)


def _key(row: Row[*tuple[Any, ...]]) -> ApiKey:
    fields = dict(row._mapping)
    models = fields.pop("models")
    return ApiKey(**fields, models=None if models is None else tuple(models))
