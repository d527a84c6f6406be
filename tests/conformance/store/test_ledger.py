from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from mlaas.errors import Conflict, PlatformError
from mlaas.store.ledger import BudgetLease, BudgetLeaseRepository

LEASE = BudgetLease(
    key_id="key-1", period="2026-11-23", replica_id="a", granted_nanos=10**18, returned_nanos=1, spent_nanos=2
)


def test_a_lease_is_replaced_in_place_and_large_sums_are_exact(store: Engine) -> None:
    repository = BudgetLeaseRepository(store)
    epoch = repository.open_shard("0")
    repository.put([LEASE], shard="0", epoch=epoch)
    grown = replace(LEASE, granted_nanos=10**18 + 1, spent_nanos=3)
    other = replace(LEASE, replica_id="b")
    repository.put([other, grown], shard="0", epoch=epoch)
    assert list(repository.list(key_id="key-1", period="2026-11-23")) == [grown, other]


def test_periods_and_keys_are_apart(store: Engine) -> None:
    repository = BudgetLeaseRepository(store)
    epoch = repository.open_shard("0")
    repository.put([LEASE, replace(LEASE, period="2026-11"), replace(LEASE, key_id="key-2")], shard="0", epoch=epoch)
    assert list(repository.list(key_id="key-1", period="2026-11-23")) == [LEASE]
    assert list(repository.list(key_id="key-1", period="2026-11-24")) == []


def test_a_writer_that_was_replaced_changes_nothing(store: Engine) -> None:
    repository = BudgetLeaseRepository(store)
    first = repository.open_shard("0")
    other_shard = repository.open_shard("1")
    second = repository.open_shard("0")
    assert second == first + 1
    with pytest.raises(Conflict, match=r"shard 0.*epoch 1") as refused:
        repository.put([LEASE], shard="0", epoch=first)
    assert refused.value.code == "ledger_superseded"
    assert list(repository.list(key_id="key-1", period="2026-11-23")) == []
    repository.put([LEASE], shard="0", epoch=second)
    repository.put([replace(LEASE, key_id="key-2")], shard="1", epoch=other_shard)


def test_a_batch_is_stored_whole_or_not_at_all(store: Engine) -> None:
    repository = BudgetLeaseRepository(store)
    epoch = repository.open_shard("0")
    broken = replace(LEASE, replica_id="b", granted_nanos=None)  # type: ignore[arg-type]
    with pytest.raises(PlatformError):
        repository.put([LEASE, broken], shard="0", epoch=epoch)
    assert list(repository.list(key_id="key-1", period="2026-11-23")) == []


def test_a_store_that_is_out_is_said_to_be(store: Engine) -> None:
    repository = BudgetLeaseRepository(store)
    with store.begin() as connection:
        connection.execute(text("DROP TABLE ledger_shards"))
    with pytest.raises(PlatformError, match="ledger_shards"):
        repository.open_shard("0")
