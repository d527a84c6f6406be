from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from sqlalchemy import Engine, text

from mlaas.auth.keyring import KeyRing
from mlaas.auth.keys import create_key
from mlaas.auth.types import KeyLimits
from mlaas.errors import AuthenticationError, Conflict, NotFound, PlatformError
from mlaas.store.keys import ApiKey, KeyRepository

NOON = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)


def add_key(repository: KeyRepository, number: int, *, created_at: datetime = NOON) -> ApiKey:
    return repository.add(
        key_id=f"key-{number}",
        name="laptop",
        tenant="ada",
        role="user",
        digest=f"{number:064x}",
        prefix="sk-mlaas-abcd",
        created_at=created_at,
    )


def test_an_added_key_is_listed_as_it_was_returned(store: Engine) -> None:
    repository = KeyRepository(store)
    key = add_key(repository, 1)
    assert key == ApiKey(
        id="key-1",
        name="laptop",
        tenant="ada",
        role="user",
        digest=f"{1:064x}",
        prefix="sk-mlaas-abcd",
        created_at=NOON,
        revoked_at=None,
    )
    assert list(repository.list()) == [key]


def test_keys_are_listed_oldest_first(store: Engine) -> None:
    repository = KeyRepository(store)
    late = add_key(repository, 1, created_at=NOON + timedelta(microseconds=1))
    early = add_key(repository, 2)
    assert list(repository.list()) == [early, late]


def test_a_time_in_another_zone_comes_back_as_the_same_instant_in_utc(store: Engine) -> None:
    repository = KeyRepository(store)
    add_key(repository, 1, created_at=NOON.astimezone(timezone(timedelta(hours=-9, minutes=-30))))
    [key] = repository.list()
    assert key.created_at == NOON
    assert key.created_at.tzinfo is UTC


def test_a_taken_id_and_a_taken_digest_are_conflicts(store: Engine) -> None:
    repository = KeyRepository(store)
    add_key(repository, 1)
    with pytest.raises(Conflict, match="key-1"):
        add_key(repository, 1)
    with pytest.raises(Conflict, match="key-2"):
        repository.add(
            key_id="key-2", name="n", tenant="t", role="user", digest=f"{1:064x}", prefix="", created_at=NOON
        )
    assert len(repository.list()) == 1


def test_revoking_twice_keeps_the_first_time(store: Engine) -> None:
    repository = KeyRepository(store)
    add_key(repository, 1)
    before = datetime.now(UTC)
    revoked = repository.revoke("key-1")
    assert revoked.revoked_at is not None
    assert before <= revoked.revoked_at <= datetime.now(UTC)
    assert repository.revoke("key-1") == revoked
    assert list(repository.list()) == [revoked]


def test_revoking_an_unknown_key_names_it_and_the_way_to_the_ids(store: Engine) -> None:
    with pytest.raises(NotFound, match=r"'key-9'.*mlaas keys list"):
        KeyRepository(store).revoke("key-9")


def test_a_key_works_from_creation_to_revocation_and_its_secret_is_nowhere_in_the_store(store: Engine) -> None:
    repository = KeyRepository(store)
    secret, key = create_key(repository, name="laptop", tenant="ada", role="admin")
    ring = KeyRing(repository)
    ring.refresh()
    assert ring.authenticate(secret).key_id == key.id
    with store.connect() as connection:
        rows = connection.execute(text("SELECT * FROM api_keys")).all()
    assert secret not in str(rows)
    repository.revoke(key.id)
    ring.refresh()
    with pytest.raises(AuthenticationError):
        ring.authenticate(secret)


def test_limits_come_back_exactly_as_they_were_given(store: Engine) -> None:
    repository = KeyRepository(store)
    limits = KeyLimits(
        models=("fast", "smart"),
        rpm=10**12,
        tpm=1,
        concurrency=2,
        budget_usd=Decimal("999999999.123456789"),
        budget_per="day",
        priority=-7,
    )
    secret, _key = create_key(repository, name="laptop", tenant="ada", role="user", limits=limits)
    ring = KeyRing(repository)
    ring.refresh()
    assert ring.authenticate(secret).limits == limits


def test_a_key_of_before_there_were_limits_has_none(store: Engine) -> None:
    with store.begin() as connection:
        columns = "id, name, tenant, role, digest, prefix, created_at"
        connection.execute(
            text(f"INSERT INTO api_keys ({columns}) VALUES ('k', 'n', 't', 'user', 'd', 'p', '2026-01-01 00:00:00')")
        )
    [key] = KeyRepository(store).list()
    assert (key.models, key.rpm, key.tpm, key.concurrency, key.budget_usd, key.budget_per) == (None,) * 6
    assert key.priority == 0


def test_a_store_that_fails_leaves_known_keys_in_force(store: Engine) -> None:
    repository = KeyRepository(store)
    secret, key = create_key(repository, name="laptop", tenant="ada", role="user")
    ring = KeyRing(repository)
    ring.refresh()
    with store.begin() as connection:
        connection.execute(text("DROP TABLE api_keys"))
    with pytest.raises(PlatformError, match="api_keys"):
        ring.refresh()
    assert ring.authenticate(secret).key_id == key.id
    with pytest.raises(AuthenticationError):
        ring.authenticate(secret + "x")
