from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas.router.limits.leases import PATIENCE_S, Pool, exchange, forget, is_recalled
from mlaas.router.limits.types import Claim, PoolId, Resource

POOL = PoolId("key-1", Resource.REQUESTS)
LIVE = ("a", "b", "c")


def ask(pool, replica_id, *, limit=10, now_s=0.0, live=LIVE, is_listening=False, **claim):
    return exchange(
        pool,
        Claim(pool=POOL, limit=limit, **claim),
        replica_id=replica_id,
        live=live,
        now_s=now_s,
        is_listening=is_listening,
    )


CLAIMS = st.lists(
    st.tuples(st.sampled_from(LIVE), st.integers(0, 12), st.integers(0, 30), st.fractions(0, 1), st.floats(0, 2))
)


@settings(deadline=None)
@given(CLAIMS, st.integers(0, 20))
def test_whatever_replicas_ask_and_return_they_never_hold_more_than_the_limit(steps, limit):
    pool, told, now_s = Pool(), dict.fromkeys(LIVE, (0, 0)), 0.0
    history = []
    for replica_id, need, extra, back, delay_s in steps:
        now_s += delay_s
        granted, returned = told[replica_id]
        returned += int((granted - returned) * back)
        claim = {"granted": granted, "returned": returned, "need": need, "extra": extra}
        before = pool
        pool, grant = ask(before, replica_id, limit=limit, now_s=now_s, **claim)
        told[replica_id] = (grant.granted, returned)
        assert sum(each - given_back for each, given_back in told.values()) == pool.held <= limit
        assert grant.granted in (granted, *range(granted + need, granted + need + extra + 1))
        history.append(ask(before, replica_id, limit=limit, now_s=now_s, **claim) == (pool, grant))
    assert all(history), "the same claim on the same pool was decided twice, in two ways"


def test_what_is_needed_comes_whole_or_not_at_all():
    _pool, grant = ask(Pool(), "a", need=11)
    assert (grant.granted, grant.free) == (0, 10)
    _pool, grant = ask(Pool(), "a", need=10)
    assert (grant.granted, grant.free) == (10, 0)


def test_chunks_shrink_as_the_pool_runs_dry():
    pool, chunks, granted = Pool(), [], 0
    for _ in range(10):
        pool, grant = ask(pool, "a", limit=1000, granted=granted, used=granted, extra=1000)
        chunks.append(grant.granted - granted)
        granted = grant.granted
    assert chunks == sorted(chunks, reverse=True)
    assert chunks[0] == 1000 // 6
    assert granted < 1000


def test_a_lost_reply_and_a_repeated_claim_create_and_lose_nothing():
    pool, first = ask(Pool(), "a", need=4)
    again, second = ask(pool, "a", need=0)
    assert second.granted == first.granted == 4
    repeated, third = ask(again, "a", granted=4, returned=3)
    assert ask(repeated, "a", granted=4, returned=3) == (repeated, third)
    assert repeated.held == 1


def test_a_replica_that_waits_is_served_before_one_that_comes_later():
    pool, grant = ask(Pool(), "a", need=7)
    pool, grant = ask(pool, "b", need=5)
    assert (grant.granted, is_recalled(pool, "a", now_s=0.0), is_recalled(pool, "b", now_s=0.0)) == (0, True, False)
    pool, grant = ask(pool, "c", need=1)
    assert (grant.granted, grant.free) == (0, 0)
    pool, _ = ask(pool, "a", granted=7, returned=2)
    pool, grant = ask(pool, "b", need=5)
    assert grant.granted == 5
    pool, grant = ask(pool, "c", need=1)
    assert grant.granted == 0


def test_a_place_in_line_ends_when_its_owner_asks_no_more():
    pool, _ = ask(Pool(), "a", need=11, limit=10)
    assert ask(pool, "b", need=1, now_s=PATIENCE_S - 0.1)[1].granted == 0
    assert ask(pool, "b", need=1, now_s=PATIENCE_S)[1].granted == 1
    given_up, _ = ask(pool, "a", need=0)
    assert ask(given_up, "b", need=1)[1].granted == 1


def test_what_others_may_give_back_is_told_but_not_of_the_dead():
    pool, _ = ask(Pool(), "a", need=6)
    pool, _ = ask(pool, "a", granted=6, used=4, unsettled=3)
    assert ask(pool, "b", need=9)[1].coming == 5
    assert ask(pool, "b", need=9, live=("b",))[1].coming == 0


def test_a_listening_ledger_believes_all_and_grants_nothing():
    pool, grant = ask(Pool(), "a", granted=9, returned=2, used=3, need=1, is_listening=True)
    assert (pool.held, grant.granted, grant.is_listening) == (7, 9, True)


def test_a_lease_that_ran_out_is_worth_what_is_in_use():
    pool, grant = ask(Pool(), "a", granted=9, returned=2, used=3)
    assert (pool.held, grant.granted) == (3, 5)


def test_what_was_used_beyond_the_share_is_booked():
    pool, _ = ask(Pool(), "a", need=4)
    pool, grant = ask(pool, "a", granted=4, used=6)
    assert (pool.held, grant.granted, grant.free) == (6, 6, 4)


def test_forgetting_a_replica_frees_its_share_and_its_place():
    pool, _ = ask(Pool(), "a", need=6)
    pool, _ = ask(pool, "b", need=5)
    pool = forget(forget(pool, "a"), "b")
    assert (pool.held, dict(pool.line)) == (0, {})
    assert ask(pool, "c", need=10)[1].granted == 10


def test_a_lowered_limit_grants_nothing_until_it_fits():
    pool, _ = ask(Pool(), "a", need=10)
    pool, grant = ask(pool, "b", need=1, limit=5)
    assert (grant.granted, grant.free) == (0, 0)
    pool, _ = ask(pool, "a", granted=10, returned=6, limit=5)
    assert ask(pool, "b", need=1, limit=5)[1].granted == 1
