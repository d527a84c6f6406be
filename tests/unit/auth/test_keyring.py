from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.auth.keyring import KeyRing
from mlaas.auth.keys import create_key
from mlaas.auth.types import UNLIMITED, KeyLimits, Principal
from mlaas.errors import AuthenticationError, PlatformError


@dataclass(frozen=True, kw_only=True)
class Key:
    id: str
    tenant: str
    role: str
    digest: str
    revoked_at: datetime | None = None
    models: tuple[str, ...] | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    budget_usd: Decimal | None = None
    budget_per: str | None = None
    priority: int = 0


class Keys:
    """A source of keys that can go down."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.is_down = False

    def add(self, *, key_id: str, name: str, prefix: str, created_at: datetime, **fields: Any) -> Key:
        self.keys.append(Key(id=key_id, **fields))
        return self.keys[-1]

    def list(self) -> Sequence[Key]:
        if self.is_down:
            raise PlatformError("store_unavailable", "the store is down")
        return self.keys


def keyring_with_one_key() -> tuple[KeyRing, Keys, str]:
    keys = Keys()
    secret, _key = create_key(keys, name="laptop", tenant="ada", role="admin")
    ring = KeyRing(keys)
    ring.refresh()
    return ring, keys, secret


def test_a_known_secret_gives_its_principal() -> None:
    ring, keys, secret = keyring_with_one_key()
    assert ring.authenticate(secret) == Principal(key_id=keys.keys[0].id, tenant="ada", role="admin")


def test_before_the_first_refresh_nobody_is_known() -> None:
    keys = Keys()
    secret, _key = create_key(keys, name="laptop", tenant="ada", role="admin")
    with pytest.raises(AuthenticationError, match="unknown or revoked"):
        KeyRing(keys).authenticate(secret)


@pytest.mark.parametrize("secret", [None, ""])
def test_without_a_secret_the_header_to_send_is_named(secret: str | None) -> None:
    ring, _keys, _secret = keyring_with_one_key()
    with pytest.raises(AuthenticationError, match="Authorization: Bearer") as refused:
        ring.authenticate(secret)
    assert refused.value.code == "missing_api_key"


RING, KEYS, SECRET = keyring_with_one_key()
NEAR_MISSES = st.integers(0, len(SECRET) - 1).map(lambda cut: SECRET[:cut]) | st.text(min_size=1).map(SECRET.__add__)


@given(st.text(st.characters()) | NEAR_MISSES | st.just(KEYS.keys[0].digest) | st.just(SECRET.swapcase()))
def test_any_other_string_is_refused(secret: str) -> None:
    with pytest.raises(AuthenticationError):
        RING.authenticate(secret)


@given(st.lists(st.booleans(), max_size=8))
def test_exactly_the_keys_in_force_authenticate(revocations: list[bool]) -> None:
    keys = Keys()
    secrets = [create_key(keys, name="n", tenant="t", role="user")[0] for _ in revocations]
    now = datetime.now(UTC)
    keys.keys = [
        replace(key, revoked_at=now if is_revoked else None)
        for key, is_revoked in zip(keys.keys, revocations, strict=True)
    ]
    ring = KeyRing(keys)
    ring.refresh()
    for secret, key in zip(secrets, keys.keys, strict=True):
        if key.revoked_at is None:
            assert ring.authenticate(secret).key_id == key.id
        else:
            with pytest.raises(AuthenticationError):
                ring.authenticate(secret)


def test_a_key_with_a_role_of_another_version_is_refused() -> None:
    ring, keys, secret = keyring_with_one_key()
    keys.keys = [replace(keys.keys[0], role="auditor")]
    ring.refresh()
    with pytest.raises(AuthenticationError):
        ring.authenticate(secret)


def test_a_principal_carries_the_limits_of_its_key() -> None:
    keys = Keys()
    limits = KeyLimits(models=("fast",), rpm=3, tpm=5, concurrency=7, budget_usd=Decimal("0.01"), budget_per="day")
    secret, _key = create_key(keys, name="n", tenant="t", role="user", limits=limits)
    unlimited, _key = create_key(keys, name="n", tenant="t", role="user")
    ring = KeyRing(keys)
    ring.refresh()
    assert ring.authenticate(secret).limits == limits
    assert ring.authenticate(unlimited).limits == UNLIMITED


def test_a_period_of_another_version_is_taken_for_the_longer_one() -> None:
    ring, keys, secret = keyring_with_one_key()
    keys.keys = [replace(keys.keys[0], budget_usd=Decimal(1), budget_per="hour")]
    ring.refresh()
    assert ring.authenticate(secret).limits.budget_per == "month"


def test_a_store_outage_keeps_known_keys_and_refuses_unknown_ones() -> None:
    ring, keys, secret = keyring_with_one_key()
    new_secret, _key = create_key(keys, name="new", tenant="ada", role="user")
    keys.is_down = True
    with pytest.raises(PlatformError):
        ring.refresh()
    assert ring.authenticate(secret).tenant == "ada"
    with pytest.raises(AuthenticationError):
        ring.authenticate(new_secret)
    keys.is_down = False
    ring.refresh()
    assert ring.authenticate(new_secret).role == "user"
