import asyncio
from decimal import Decimal

import pytest

from mlaas.auth.types import UNLIMITED, KeyLimits, Principal
from mlaas.errors import BudgetExceeded, PlatformError, RateLimited
from mlaas.router.limits.accounts import SLOT_WAIT_S
from mlaas.router.limits.links import POLL_S
from mlaas.router.limits.meter import Reservation
from mlaas.router.limits.types import LEASE_S, TICK_S, WINDOW_S
from tests.unit.router.limits.replicas import Clock, Cluster, Replica

NOTHING = Decimal(0)
CENT = KeyLimits(budget_usd=Decimal("0.01"), budget_per="day")
PRICE, FIXED = Decimal("0.000002"), Decimal("0.00001")
LONGER_THAN_THE_BUDGET = {"cost_usd": FIXED + 128_000 * PRICE, "fixed_usd": FIXED, "usd_per_output_token": PRICE}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cluster(clock):
    return Cluster(clock)


@pytest.fixture
def replicas(cluster):
    return [Replica(cluster) for _ in range(2)]


def principal(limits):
    return Principal(key_id="key-1", tenant="t", role="user", limits=limits)


async def admit(replica, limits, count, **asked):
    outcomes = [await replica.reserve(limits, **asked) for _ in range(count)]
    assert all(isinstance(outcome, Reservation) for outcome in outcomes), outcomes
    return outcomes


async def use(replica, limits, *, tokens):
    [reservation] = await admit(replica, limits, 1, tokens=tokens)
    replica.meter.settle(reservation, tokens=tokens, cost_usd=NOTHING)


async def pass_time(clock, replicas, seconds):
    for _ in range(round(seconds / TICK_S)):
        clock.now_s += TICK_S
        for replica in replicas:
            await replica.meter.exchange()


async def test_a_key_without_limits_never_touches_the_ledger(replicas):
    replicas[0].network.loses_reports = True
    asked = {"tokens": 10**9, "cost_usd": Decimal(10**9), "num_exchanges": 0}
    [reservation] = await admit(replicas[0], UNLIMITED, 1, **asked)
    replicas[0].meter.settle(reservation, tokens=1, cost_usd=NOTHING)
    assert reservation == Reservation()
    assert replicas[0].meter.headers(principal(UNLIMITED)) == []


async def test_what_is_held_is_given_without_asking_anybody(replicas):
    [replica, _] = replicas
    await admit(replica, KeyLimits(rpm=100), 1)
    replica.network.loses_reports = True
    await admit(replica, KeyLimits(rpm=100), 1, num_exchanges=0)


async def test_two_replicas_admit_exactly_the_limit_and_the_refusal_says_when_to_come_back(clock, replicas):
    limits = KeyLimits(rpm=10)
    for number in range(10):
        await admit(replicas[number % 2], limits, 1)
        await pass_time(clock, replicas, 1.0)
    for replica in replicas:
        refused = await replica.reserve(limits)
        assert isinstance(refused, RateLimited)
        assert (refused.status, refused.limit, refused.code) == (429, "rpm", "rate_limit_exceeded")
        assert "rpm=10" in refused.message
        assert refused.retry_after_s == pytest.approx(50.05, abs=1.01)


async def test_a_request_is_admitted_when_its_refusal_said(clock, replicas):
    limits = KeyLimits(tpm=100)
    await use(replicas[0], limits, tokens=60)
    clock.now_s += 10.0
    await use(replicas[0], limits, tokens=40)
    refused = await replicas[0].reserve(limits, tokens=80)
    assert refused.retry_after_s == pytest.approx(60.05)
    clock.now_s += refused.retry_after_s - 0.1
    assert isinstance(await replicas[0].reserve(limits, tokens=80), RateLimited)
    clock.now_s += 0.101
    await admit(replicas[0], limits, 1, tokens=80)


async def test_tokens_that_were_not_used_come_back_when_the_request_ends(replicas):
    limits = KeyLimits(tpm=100)
    [reservation] = await admit(replicas[0], limits, 1, tokens=100)
    replicas[0].meter.settle(reservation, tokens=30, cost_usd=NOTHING)
    await use(replicas[0], limits, tokens=70)
    assert isinstance(await replicas[0].reserve(limits, tokens=1, num_exchanges=2), RateLimited)


async def test_a_request_larger_than_the_limit_is_told_that_waiting_does_not_help(replicas):
    refused = await replicas[0].reserve(KeyLimits(tpm=100), tokens=101)
    assert isinstance(refused, RateLimited)
    assert refused.retry_after_s is None
    assert "101" in refused.message


async def test_a_slot_is_free_again_when_its_request_ends_even_a_cancelled_one(replicas):
    limits = KeyLimits(concurrency=2)
    [first, _second] = await admit(replicas[0], limits, 2)
    refused = await replicas[0].reserve(limits, wait_s=SLOT_WAIT_S)
    assert isinstance(refused, RateLimited)
    assert (refused.limit, refused.code) == ("concurrency", "concurrency_limit_exceeded")
    replicas[0].meter.settle(first, tokens=0, cost_usd=NOTHING)
    await admit(replicas[0], limits, 1)


async def test_a_slot_that_another_replica_has_just_freed_is_waited_for(replicas):
    [here, there] = replicas
    limits = KeyLimits(concurrency=1)
    [held] = await admit(there, limits, 1)
    asked = {"input_tokens": 0, "output_tokens": 0, "cost_usd": NOTHING}
    waiting = asyncio.ensure_future(here.meter.reserve(principal(limits), **asked))
    await asyncio.sleep(0)
    there.meter.settle(held, tokens=0, cost_usd=NOTHING)
    for replica in (here, there, there, here):
        assert not waiting.done()
        await replica.meter.exchange()
    assert isinstance(await waiting, Reservation)


async def test_a_caller_that_leaves_while_it_waits_takes_nothing_with_it(replicas, clock):
    [held] = await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.01"))
    assert await replicas[0].reserve(CENT, cost_usd=Decimal("0.01")) is None
    replicas[0].meter.settle(held, tokens=0, cost_usd=NOTHING)
    await pass_time(clock, replicas, 1.5)
    await admit(replicas[1], CENT, 1, cost_usd=Decimal("0.01"))


async def test_a_caller_that_leaves_at_the_moment_it_is_served_gives_all_back(replicas):
    [held] = await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.01"))
    asked = {"input_tokens": 0, "output_tokens": 0, "cost_usd": Decimal("0.01")}
    leaving = asyncio.ensure_future(replicas[0].meter.reserve(principal(CENT), **asked))
    await asyncio.sleep(0)
    replicas[0].meter.settle(held, tokens=0, cost_usd=NOTHING)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.01"), num_exchanges=0)


async def test_units_that_lie_idle_go_back_within_a_second_or_so(clock, cluster, replicas):
    limits = KeyLimits(rpm=1000, concurrency=100, budget_usd=Decimal(1), budget_per="month")
    for reservation in await admit(replicas[0], limits, 20, cost_usd=Decimal("0.001")):
        replicas[0].meter.settle(reservation, tokens=0, cost_usd=Decimal("0.0005"))
    await pass_time(clock, replicas, 1.5)
    [row] = cluster.store.rows.values()
    assert (row.granted_nanos - row.returned_nanos, row.spent_nanos) == (10_000_000, 10_000_000)
    await admit(replicas[1], limits, 100)
    await admit(replicas[1], KeyLimits(rpm=1000), 880)
    assert isinstance(await replicas[1].reserve(KeyLimits(rpm=1000)), RateLimited)


async def test_a_replica_that_starves_is_given_what_lies_idle_at_another(clock, replicas):
    limits = KeyLimits(tpm=1000)
    for reservation in await admit(replicas[0], limits, 5, tokens=200):
        replicas[0].meter.settle(reservation, tokens=0, cost_usd=NOTHING)
    starving = asyncio.ensure_future(replicas[1].reserve(limits, tokens=1000, num_exchanges=4))
    for _ in range(4):
        await asyncio.sleep(0)
        await replicas[0].meter.exchange()
    assert isinstance(await starving, Reservation)


async def test_those_who_wait_are_served_in_the_order_they_came(replicas):
    meter, order = replicas[0].meter, []
    [held] = await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.01"))

    async def ask(number):
        reservation = await meter.reserve(
            principal(CENT), input_tokens=0, output_tokens=0, cost_usd=Decimal("0.01") if number % 2 else NOTHING
        )
        order.append(number)
        await asyncio.sleep(0)
        meter.settle(reservation, tokens=0, cost_usd=NOTHING)

    callers = [asyncio.ensure_future(ask(number)) for number in (1, 3, 4, 5)]
    await asyncio.sleep(0)
    assert order == []
    meter.settle(held, tokens=0, cost_usd=NOTHING)
    await asyncio.gather(*callers)
    assert order == [1, 3, 4, 5]


async def test_the_last_of_a_budget_pays_for_a_shorter_answer(replicas):
    price, fixed = Decimal("0.00001"), Decimal("0.001")
    asked = {"cost_usd": fixed + 600 * price, "fixed_usd": fixed, "usd_per_output_token": price}
    [whole] = await admit(replicas[0], CENT, 1, **asked)
    assert whole.max_output_tokens is None
    replicas[0].meter.settle(whole, tokens=0, cost_usd=Decimal("0.007"))
    [capped] = await admit(replicas[0], CENT, 1, **asked)
    assert capped.max_output_tokens == 200
    replicas[0].meter.settle(capped, tokens=0, cost_usd=Decimal("0.00199"))
    [last] = await admit(replicas[0], CENT, 1, **asked)
    assert last.max_output_tokens == 1
    replicas[0].meter.settle(last, tokens=0, cost_usd=Decimal("0.00101"))
    refused = await replicas[0].reserve(CENT, **asked)
    assert isinstance(refused, BudgetExceeded)
    assert (refused.status, refused.limit) == (429, "budget_usd")
    assert "budget_usd=0.01" in refused.message
    assert 0 < refused.retry_after_s <= 24 * 3600


async def test_a_request_whose_answer_cannot_be_capped_needs_the_whole_bound(replicas):
    [held] = await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.009"))
    replicas[0].meter.settle(held, tokens=0, cost_usd=Decimal("0.009"))
    assert isinstance(await replicas[0].reserve(CENT, cost_usd=Decimal("0.002")), BudgetExceeded)
    await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.001"))


async def test_money_that_is_only_reserved_is_waited_for(replicas):
    [held] = await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.01"))
    waiting = asyncio.ensure_future(
        replicas[0].meter.reserve(principal(CENT), input_tokens=0, output_tokens=0, cost_usd=Decimal("0.009"))
    )
    await asyncio.sleep(0)
    await replicas[0].meter.exchange()
    assert not waiting.done()
    replicas[0].meter.settle(held, tokens=0, cost_usd=Decimal("0.001"))
    assert (await waiting).max_output_tokens is None


async def test_callers_at_two_replicas_spend_a_small_budget_to_its_end_before_anybody_is_refused(clock, replicas):
    spent = NOTHING
    spent_at_refusal = []

    async def call(replica):
        nonlocal spent
        while not spent_at_refusal:
            try:
                reservation = await replica.meter.reserve(
                    principal(CENT), input_tokens=3, output_tokens=1000, **LONGER_THAN_THE_BUDGET
                )
            except BudgetExceeded:
                spent_at_refusal.append(spent)
                return
            assert reservation.max_output_tokens > 0
            await asyncio.sleep(0)
            cost = FIXED + min(15, reservation.max_output_tokens) * PRICE
            spent += cost
            replica.meter.settle(reservation, tokens=18, cost_usd=cost)

    callers = [asyncio.ensure_future(call(replicas[number % 2])) for number in range(64)]
    while not spent_at_refusal:
        clock.now_s += POLL_S
        for replica in replicas:
            await replica.meter.exchange()
            await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert Decimal("0.0099") < spent_at_refusal[0] <= spent <= CENT.budget_usd


async def test_one_caller_whose_bound_is_beyond_the_budget_is_given_a_fourth_of_it(replicas):
    [reservation] = await admit(replicas[0], CENT, 1, **LONGER_THAN_THE_BUDGET)
    assert reservation.max_output_tokens == 1245


async def test_a_replica_with_a_long_line_does_not_keep_all_money_for_itself(clock, replicas):
    busy, other = replicas

    async def call():
        while True:
            reservation = await busy.meter.reserve(
                principal(CENT), input_tokens=3, output_tokens=1000, **LONGER_THAN_THE_BUDGET
            )
            held.append(reservation)
            await asyncio.sleep(0)

    def settle_all():
        for reservation in held:
            busy.meter.settle(reservation, tokens=3, cost_usd=NOTHING)
        held.clear()

    held = []
    callers = [asyncio.ensure_future(call()) for _ in range(32)]
    waiting = None
    for number in range(20):
        clock.now_s += POLL_S
        for replica in replicas:
            await replica.meter.exchange()
            await asyncio.sleep(0)
        settle_all()
        await asyncio.sleep(0)
        if number == 5:
            waiting = asyncio.ensure_future(
                other.meter.reserve(principal(CENT), input_tokens=3, output_tokens=1000, **LONGER_THAN_THE_BUDGET)
            )
            await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert waiting.done()
    assert waiting.result().max_output_tokens >= 500


async def test_money_on_its_way_back_to_the_ledger_is_not_spent(replicas, monkeypatch):
    replica, other = replicas
    cluster = replica.network.cluster
    [held] = await admit(replica, CENT, 1, cost_usd=CENT.budget_usd)
    asked = {"input_tokens": 0, "output_tokens": 0, "cost_usd": CENT.budget_usd}
    waiting = asyncio.ensure_future(other.meter.reserve(principal(CENT), **asked))
    await asyncio.sleep(0)
    await other.meter.exchange()
    replica.meter.settle(held, tokens=0, cost_usd=NOTHING)
    exchange, outcomes = cluster.exchange_budgets, []

    async def ask_meanwhile(shard, report):
        if any(claim.returned for claim in report.claims):
            outcomes.append(await replica.reserve(CENT, cost_usd=CENT.budget_usd, num_exchanges=0))
        return await exchange(shard, report)

    monkeypatch.setattr(cluster, "exchange_budgets", ask_meanwhile)
    for each in (replica, replica, other):
        await each.meter.exchange()
    assert outcomes == [None]
    assert (await waiting).max_output_tokens is None


async def test_money_of_a_long_answer_at_another_replica_is_waited_for(clock, replicas):
    await admit(replicas[0], CENT, 1, cost_usd=CENT.budget_usd)
    await pass_time(clock, replicas, 2 * LEASE_S)
    assert await replicas[1].reserve(CENT, cost_usd=CENT.budget_usd) is None


async def test_a_new_day_has_a_new_budget_and_late_costs_go_to_the_old_one(clock, cluster, replicas):
    [late] = await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.01"))
    clock.now_s += 24 * 3600
    [today] = await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.01"))
    replicas[0].meter.settle(late, tokens=0, cost_usd=Decimal("0.004"))
    replicas[0].meter.settle(today, tokens=0, cost_usd=Decimal("0.003"))
    await pass_time(clock, replicas, 1.5)
    spent = {row.period: row.spent_nanos for row in cluster.store.rows.values()}
    assert sorted(spent.values()) == [3_000_000, 4_000_000]
    assert len(spent) == 2
    assert all(row.granted_nanos - row.returned_nanos == row.spent_nanos for row in cluster.store.rows.values())


async def test_a_cost_beyond_the_bound_is_booked_and_stops_the_next(replicas):
    [held] = await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.001"))
    replicas[0].meter.settle(held, tokens=0, cost_usd=Decimal("0.02"))
    assert isinstance(await replicas[0].reserve(CENT, cost_usd=Decimal("0.001")), BudgetExceeded)


async def test_without_the_ledger_what_is_held_is_spent_and_then_the_gate_closes(clock, cluster, replicas):
    limits = KeyLimits(concurrency=50)
    for reservation in await admit(replicas[0], limits, 4):
        replicas[0].meter.settle(reservation, tokens=0, cost_usd=NOTHING)
    cluster.kill_ledger()
    await replicas[0].meter.exchange()
    await admit(replicas[0], limits, 1, num_exchanges=0)
    clock.now_s += LEASE_S
    refused = await replicas[0].reserve(limits, num_exchanges=0)
    assert isinstance(refused, PlatformError)
    assert (refused.status, refused.code, refused.retry_after_s) == (503, "limits_unavailable", 1.0)


async def test_a_ledger_that_is_back_is_noticed_before_anybody_asks(clock, cluster, replicas):
    cluster.kill_ledger()
    await replicas[0].meter.exchange()
    assert isinstance(await replicas[0].reserve(KeyLimits(rpm=1), num_exchanges=0), PlatformError)
    cluster.restart_ledger()
    clock.now_s += LEASE_S
    await replicas[0].meter.exchange()
    await admit(replicas[0], KeyLimits(rpm=1), 1)


async def test_money_that_is_held_may_be_spent_however_long_the_ledger_is_away(clock, cluster, replicas):
    for reservation in await admit(replicas[0], CENT, 4, cost_usd=Decimal("0.001")):
        replicas[0].meter.settle(reservation, tokens=0, cost_usd=NOTHING)
    cluster.kill_ledger()
    clock.now_s += 10 * LEASE_S
    await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.001"), num_exchanges=0)


async def test_without_the_store_windows_go_on_money_is_spent_from_what_is_held_and_nothing_is_lost(
    clock, cluster, replicas
):
    [held] = await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.001"))
    cluster.store.is_out = True
    replicas[0].meter.settle(held, tokens=0, cost_usd=Decimal("0.0005"))
    await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.0005"), num_exchanges=0)
    await admit(replicas[1], KeyLimits(rpm=5), 5)
    assert await replicas[1].reserve(CENT, cost_usd=Decimal("0.001")) is None
    cluster.store.is_out = False
    await pass_time(clock, replicas, 1.5)
    [row] = [row for row in cluster.store.rows.values() if row.spent_nanos]
    assert row.spent_nanos == 500_000


async def test_a_replica_that_was_cut_off_starts_again_from_what_is_in_use(clock, replicas):
    limits = KeyLimits(concurrency=4)
    for reservation in await admit(replicas[0], limits, 3):
        replicas[0].meter.settle(reservation, tokens=0, cost_usd=NOTHING)
    [_under_way] = await admit(replicas[0], limits, 1, num_exchanges=0)
    replicas[0].network.loses_reports = True
    clock.now_s += LEASE_S
    await admit(replicas[1], limits, 3)
    assert isinstance(await replicas[0].reserve(limits), PlatformError)
    replicas[0].network.loses_reports = False
    await pass_time(clock, replicas, 2 * TICK_S)
    assert isinstance(await replicas[0].reserve(limits, wait_s=SLOT_WAIT_S), RateLimited)


async def test_a_replica_that_is_back_after_its_lease_has_only_what_is_in_use(clock, replicas):
    limits = KeyLimits(tpm=20)
    await use(replicas[0], limits, tokens=20)
    clock.now_s += WINDOW_S + 2 * LEASE_S + TICK_S
    await use(replicas[1], limits, tokens=20)
    await replicas[1].meter.exchange()
    assert isinstance(await replicas[0].reserve(limits, tokens=20), RateLimited)


async def test_a_lost_answer_is_heard_with_the_next_one(clock, replicas, cluster):
    [held] = await admit(replicas[0], CENT, 1, cost_usd=Decimal("0.001"))
    replicas[0].network.loses_replies = True
    assert await replicas[0].reserve(CENT, cost_usd=Decimal("0.004")) is None
    replicas[0].network.loses_replies = False
    replicas[0].meter.settle(held, tokens=0, cost_usd=Decimal("0.001"))
    await pass_time(clock, replicas, 1.5)
    [row] = cluster.store.rows.values()
    assert row.granted_nanos - row.returned_nanos == row.spent_nanos == 1_000_000


async def test_the_next_ledger_grants_nothing_that_another_replica_still_holds(clock, cluster, replicas):
    limits = KeyLimits(rpm=10)
    await admit(replicas[0], limits, 10)
    cluster.kill_ledger()
    cluster.restart_ledger()
    assert await replicas[1].reserve(limits) is None
    await replicas[0].meter.exchange()
    await replicas[0].meter.exchange()
    clock.now_s += LEASE_S
    assert isinstance(await replicas[1].reserve(limits), RateLimited)


async def test_a_dead_replica_frees_its_slots_with_its_lease_and_its_rates_a_window_later(clock, cluster):
    limits = KeyLimits(rpm=5, concurrency=5)
    await admit(Replica(cluster), limits, 5)
    survivor = Replica(cluster)
    clock.now_s += LEASE_S
    await admit(survivor, KeyLimits(concurrency=5), 5)
    assert isinstance(await survivor.reserve(KeyLimits(rpm=5)), RateLimited)
    clock.now_s += WINDOW_S + LEASE_S
    await admit(survivor, KeyLimits(rpm=5), 5)


async def test_a_replica_that_closes_leaves_everything_behind_but_what_it_spent(cluster, replicas):
    limits = KeyLimits(concurrency=3, budget_usd=Decimal(1), budget_per="month")
    for reservation in await admit(replicas[0], limits, 3, cost_usd=Decimal("0.2")):
        replicas[0].meter.settle(reservation, tokens=0, cost_usd=Decimal("0.1"))
    await replicas[0].meter.close()
    [row] = cluster.store.rows.values()
    assert row.granted_nanos - row.returned_nanos == row.spent_nanos == 300_000_000
    await admit(replicas[1], limits, 3, cost_usd=Decimal("0.2"))


async def test_settling_twice_changes_nothing(replicas):
    limits = KeyLimits(tpm=100, concurrency=2)
    [reservation] = await admit(replicas[0], limits, 1, tokens=50)
    for _ in range(2):
        replicas[0].meter.settle(reservation, tokens=50, cost_usd=NOTHING)
    await use(replicas[0], limits, tokens=50)
    assert isinstance(await replicas[0].reserve(limits, tokens=1), RateLimited)


async def test_a_changed_limit_is_in_force_with_the_next_request(replicas):
    await admit(replicas[0], KeyLimits(rpm=2), 2)
    assert isinstance(await replicas[0].reserve(KeyLimits(rpm=2)), RateLimited)
    await admit(replicas[0], KeyLimits(rpm=3), 1)
    assert isinstance(await replicas[0].reserve(KeyLimits(rpm=3)), RateLimited)


async def test_keys_that_are_idle_are_forgotten(clock, replicas):
    for reservation in await admit(replicas[0], KeyLimits(rpm=5, tpm=5, concurrency=5), 2):
        replicas[0].meter.settle(reservation, tokens=0, cost_usd=NOTHING)
    await pass_time(clock, replicas, WINDOW_S + 2)
    assert [shard.accounts for shard in replicas[0].meter._shards] == [{}]


async def test_headers_have_the_forms_of_openai(clock, replicas):
    limits = KeyLimits(rpm=60, tpm=150_000)
    [reservation] = await admit(replicas[0], limits, 1, tokens=16)
    replicas[0].meter.settle(reservation, tokens=16, cost_usd=NOTHING)
    clock.now_s += 0.05
    assert replicas[0].meter.headers(principal(limits)) == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-requests", b"1m0s"),
        (b"x-ratelimit-limit-tokens", b"150000"),
        (b"x-ratelimit-remaining-tokens", b"149984"),
        (b"x-ratelimit-reset-tokens", b"1m0s"),
    ]
