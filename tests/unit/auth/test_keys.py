import hashlib
import re
from datetime import UTC, datetime

import pytest

from mlaas.auth.keys import create_key
from mlaas.errors import ConfigError


class Recorder:
    """Keeps what it is asked to store."""

    def __init__(self) -> None:
        self.added: list[dict[str, object]] = []

    def add(self, **fields: object) -> dict[str, object]:
        self.added.append(fields)
        return fields


def test_a_key_has_256_random_bits_and_is_stored_as_a_digest_only() -> None:
    before = datetime.now(UTC)
    secret, key = create_key(Recorder(), name="laptop", tenant="ada", role="user")
    assert re.fullmatch(r"sk-mlaas-[A-Za-z0-9_-]{43}", secret)
    assert key["digest"] == hashlib.sha256(secret.encode()).hexdigest()
    assert key["prefix"] == secret[:13]
    assert before <= key["created_at"] <= datetime.now(UTC)
    assert secret not in str(key)


def test_no_two_keys_are_alike() -> None:
    recorder = Recorder()
    secrets = {create_key(recorder, name="n", tenant="t", role="user")[0] for _ in range(100)}
    assert len(secrets) == 100
    assert len({str(key["key_id"]) for key in recorder.added}) == 100


@pytest.mark.parametrize(
    ("name", "tenant", "role", "message"),
    [
        ("n", "t", "root", "role='root' is unknown; use one of admin, user"),
        (" ", "t", "user", "name=' ' is not a name"),
        ("n", "", "user", "tenant='' is not a name"),
        ("n\0", "t", "user", r"name='n\\x00' is not a name"),
    ],
)
def test_wrong_fields_are_refused_by_name_and_value(name: str, tenant: str, role: str, message: str) -> None:
    recorder = Recorder()
    with pytest.raises(ConfigError, match=message):
        create_key(recorder, name=name, tenant=tenant, role=role)
    assert recorder.added == []
