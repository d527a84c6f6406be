"""Responses that callers may ask for again, and those that run in the background."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from mlaas.errors import Conflict, NotFound
from mlaas.store.engine import transaction
from mlaas.store.tables import responses

ACTIVE: Final = ("queued", "in_progress")
"""States that somebody has to work on."""


@dataclass(frozen=True, kw_only=True)
class StoredResponse:
    """One response with what it answers."""

    id: str
    tenant: str
    """Whose it is; nobody else can see it."""
    previous_id: str | None
    """The response that it continues; None: it begins a conversation."""
    status: str
    """OpenAI's `status`."""
    provider: str
    """Who answered; empty while nobody has."""
    items: str
    """What the caller said this time: a JSON array of input items."""
    answer: str
    """The response object as JSON."""
    created_at: datetime
    owner: str | None = None
    """The process that runs it in the background; None when it was answered at once."""
    seen_at: datetime | None = None
    """When its owner last said that it is alive."""


class ResponseRepository:
    """The responses of the store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, response: StoredResponse) -> None:
        """Store a new response.

        Raises:
            Conflict: its id is taken.
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            try:
                connection.execute(insert(responses).values(asdict(response)))
            except IntegrityError as error:
                raise Conflict("response_exists", f"response {response.id} exists already") from error

    def get(self, response_id: str, *, tenant: str) -> StoredResponse:
        """Return a tenant's response.

        Raises:
            NotFound: the tenant has no response of this id.
            PlatformError: the store cannot be reached.
        """
        return self.list_conversation(response_id, tenant=tenant, depth=1)[0]

    def list_conversation(self, response_id: str, *, tenant: str, depth: int) -> Sequence[StoredResponse]:
        """Return a tenant's response and those that it continues, oldest first.

        Args:
            response_id: the last one.
            tenant: whose.
            depth: at most so many.

        Raises:
            NotFound: the tenant has no such response, or one that it continues has been deleted; the message names it.
            PlatformError: the store cannot be reached.
        """
        found: list[StoredResponse] = []
        next_id: str | None = response_id
        with transaction(self._engine) as connection:
            while next_id is not None and len(found) < depth:
                wanted = (responses.c.id == next_id) & (responses.c.tenant == tenant)
                row = connection.execute(select(responses).where(wanted)).one_or_none()
                if row is None:
                    raise NotFound("response_not_found", f"there is no response with the id {next_id[:100]!r}")
                found.append(StoredResponse(**row._mapping))
                next_id = found[-1].previous_id
        return found[::-1]

    def delete(self, response_id: str, *, tenant: str) -> None:
        """Remove a tenant's response for good.

        Raises:
            NotFound: the tenant has no response of this id.
            PlatformError: the store cannot be reached.
        """
        wanted = (responses.c.id == response_id) & (responses.c.tenant == tenant)
        with transaction(self._engine) as connection:
            if not connection.execute(delete(responses).where(wanted)).rowcount:
                raise NotFound("response_not_found", f"there is no response with the id {response_id[:100]!r}")

    def end(self, response_id: str, *, status: str, answer: str, provider: str = "") -> bool:
        """Write how a response ended, unless it has ended already; tell whether this is how.

        Raises:
            PlatformError: the store cannot be reached.
        """
        still_active = (responses.c.id == response_id) & responses.c.status.in_(ACTIVE)
        ended = update(responses).where(still_active).values(status=status, answer=answer, provider=provider)
        with transaction(self._engine) as connection:
            return bool(connection.execute(ended).rowcount)

    def touch(self, response_ids: Collection[str], *, at: datetime) -> frozenset[str]:
        """Say that responses are still being worked on, and return those that have not been ended by others.

        Raises:
            PlatformError: the store cannot be reached.
        """
        still_active = responses.c.id.in_(response_ids) & responses.c.status.in_(ACTIVE)
        touched = update(responses).where(still_active).values(seen_at=at).returning(responses.c.id)
        with transaction(self._engine) as connection:
            return frozenset(connection.execute(touched).scalars())

    def list_abandoned(self, *, before: datetime) -> Sequence[StoredResponse]:
        """Return the responses that should be worked on, and whose owner has not been seen since.

        Raises:
            PlatformError: the store cannot be reached.
        """
        wanted = responses.c.status.in_(ACTIVE) & (responses.c.seen_at < before)
        with transaction(self._engine) as connection:
            rows = connection.execute(select(responses).where(wanted).order_by(responses.c.created_at)).all()
        return [StoredResponse(**row._mapping) for row in rows]

    def purge(self, *, before: datetime) -> int:
        """Remove the responses that are older, and return how many.

        Raises:
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            return connection.execute(delete(responses).where(responses.c.created_at < before)).rowcount
