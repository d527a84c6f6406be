import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas.errors import PlatformError
from mlaas.router.limits.ledger import Ledger, shard_of
from mlaas.router.limits.types import Claim, PoolId, Report, Resource
from tests.unit.router.limits.replicas import Clock, MemoryStore

BUDGET = PoolId("key-1", Resource.BUDGET, "2026-11")


def report(replica_id, sequence, *, granted=0, need=0, limit=10):
    claim = Claim(pool=BUDGET, limit=limit, granted=granted, need=need)
    return Report(replica_id=replica_id, sequence=sequence, claims=(claim,))


async def test_a_report_that_was_overtaken_changes_nothing():
    ledger = Ledger("0", MemoryStore(), clock=Clock())
    await ledger.exchange_budgets(report("a", 2, need=1))
    assert (await ledger.exchange_budgets(report("a", 1, need=1))).grants == ()
    [grant] = (await ledger.exchange_budgets(report("a", 3, granted=1))).grants
    assert grant.granted == 1


async def test_money_is_stored_before_it_is_granted_and_what_is_not_stored_was_never_granted():
    store = MemoryStore()
    ledger = Ledger("0", store, clock=Clock())
    await ledger.exchange_budgets(report("a", 1, need=4))
    assert [row.granted_nanos for row in store.rows.values()] == [4]
    store.is_out = True
    with pytest.raises(PlatformError, match="store is out"):
        await ledger.exchange_budgets(report("a", 2, granted=4, need=6))
    store.is_out = False
    [grant] = (await ledger.exchange_budgets(report("b", 1, need=6))).grants
    assert grant.granted == 6


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from("ab"), st.integers(1, 4)), max_size=12))
def test_two_processes_that_take_each_other_for_dead_never_grant_the_same_money(steps):
    store = MemoryStore()
    twins = [Ledger("0", store, clock=Clock()) for _ in range(2)]

    async def run():
        granted = dict.fromkeys("ab", 0)
        for sequence, (number, replica_id, need) in enumerate(steps, start=1):
            try:
                asked = report(replica_id, sequence, granted=granted[replica_id], need=need)
                [grant] = (await twins[number].exchange_budgets(asked)).grants
            except PlatformError:
                continue
            granted[replica_id] = grant.granted
            assert sum(granted.values()) <= sum(row.granted_nanos for row in store.rows.values()) <= 10

    asyncio.run(run())


def test_every_process_finds_the_same_shard_for_a_key():
    assert [shard_of(f"key-{number}", num_shards=2) for number in range(6)] == [0, 0, 0, 0, 1, 1]
