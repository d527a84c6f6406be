"""What each routing policy prefers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.router.choice.decide import decide
from mlaas.router.types import (
    BalanceWeights,
    Candidate,
    EngineLoad,
    Need,
    Offer,
    Pace,
    Readiness,
    Route,
    RoutingPolicy,
    Slo,
    Snapshot,
    Target,
    TokenPrice,
)

A, B, C = (Target(provider="p", model=name) for name in "abc")
NEED = Need(task="code", input_tokens=1000, output_tokens=1000)


def pace(ttft_s: float = 0.1, tokens_per_s: float = 100.0) -> Pace:
    return Pace(
        num_seen=9,
        ttft_p50_s=ttft_s,
        ttft_p95_s=ttft_s,
        ttft_idle_s=ttft_s,
        tokens_per_s=tokens_per_s,
        duration_s=ttft_s + 1,
    )


def candidate(target, *, usd=None, quality=None, origin="", **more):
    price = TokenPrice(input_usd=usd / 1e6, output_usd=usd / 1e6) if usd is not None else None
    offer = Offer(is_external=True, price=price, quality=quality or {})
    return Candidate(target=target, origin=origin or target.model, readiness=Readiness.READY, offer=offer, **more)


def chosen(policy, *candidates, **more):
    fields = {name: more.pop(name) for name in ("weights", "slo", "balance") if name in more}
    targets = tuple(dict.fromkeys(each.target for each in candidates))
    route = Route(model="alias", targets=targets, policy=policy, is_alias=True, **fields)
    decision = decide(Snapshot(route=route, candidates=candidates, **{"need": NEED, **more}))
    return [each.origin for each in decision.attempts], decision.attempts[0].reason


def test_cheapest_is_by_the_expected_cost_of_this_very_request():
    talker = Offer(price=TokenPrice(input_usd=1e-7, output_usd=9e-6))
    reader = Offer(price=TokenPrice(input_usd=2e-6, output_usd=2e-6))
    pair = [replace(candidate(A), offer=talker), replace(candidate(B), offer=reader)]
    policy = RoutingPolicy.CHEAPEST
    assert chosen(policy, *pair, need=Need(input_tokens=9000, output_tokens=10))[0] == ["a", "b"]
    order, reason = chosen(policy, *pair, need=Need(input_tokens=10, output_tokens=1000))
    assert order == ["b", "a"]
    assert reason == "cheapest: $2.00/M vs $8.91/M at p/a"


def test_cheapest_puts_a_target_without_a_price_last():
    order, reason = chosen(RoutingPolicy.CHEAPEST, candidate(A), candidate(B, usd=9), candidate(C, usd=1))
    assert order == ["c", "b", "a"]
    assert reason == "cheapest: $1.00/M vs $9.00/M at p/b"


def test_fastest_is_the_earliest_end_and_not_the_earliest_start():
    quick, long = candidate(A, pace=pace(0.05, 50)), candidate(B, pace=pace(0.5, 200))
    assert chosen(RoutingPolicy.FASTEST, quick, long, need=Need(output_tokens=10))[0] == ["a", "b"]
    order, reason = chosen(RoutingPolicy.FASTEST, quick, long)
    assert order == ["b", "a"]
    assert reason == "fastest: done in 5.50 s vs done in 20.05 s at p/a"


def test_fastest_explores_an_unknown_target_with_one_request_at_a_time():
    known = candidate(A, pace=pace())
    order, reason = chosen(RoutingPolicy.FASTEST, known, candidate(B))
    assert order == ["b", "a"]
    assert reason.startswith("fastest: not measured lately")
    assert chosen(RoutingPolicy.FASTEST, known, candidate(B, num_outstanding=1))[0] == ["a", "b"]


def test_balanced_trades_price_against_time_and_quality():
    dear_fast = candidate(A, usd=4, pace=pace(0.1, 400), quality={"code": 0.8})
    cheap_slow = candidate(B, usd=1, pace=pace(0.1, 50), quality={"code": 0.8})
    assert chosen(RoutingPolicy.BALANCED, dear_fast, cheap_slow)[0] == ["a", "b"]
    thrifty = BalanceWeights(cost=2.0)
    assert chosen(RoutingPolicy.BALANCED, dear_fast, cheap_slow, balance=thrifty)[0] == ["b", "a"]
    better = candidate(C, usd=1, pace=pace(0.1, 50), quality={"code": 0.9})
    order, reason = chosen(RoutingPolicy.BALANCED, cheap_slow, better)
    assert order == ["c", "b"]
    assert reason == "balanced: $1.00/M, 20.10 s, quality 0.90 vs $1.00/M, 20.10 s, quality 0.80 at p/b"


def test_balanced_puts_who_breaks_the_slo_behind_who_keeps_it():
    slow, quick = candidate(A, usd=1, pace=pace(3.0)), candidate(B, usd=100, pace=pace(0.1))
    order, reason = chosen(RoutingPolicy.BALANCED, slow, quick, slo=Slo(ttft_s=1.0))
    assert order == ["b", "a"]
    assert reason.endswith("breaks the SLO at p/a")
    crawling = candidate(A, usd=1, pace=pace(0.1, 5))
    assert chosen(RoutingPolicy.BALANCED, crawling, quick, slo=Slo(tokens_per_s=20))[0] == ["b", "a"]


def test_a_price_of_zero_does_not_make_time_meaningless():
    free = candidate(A, usd=0, pace=pace(100.0, 1))
    paid = candidate(B, usd=1, pace=pace(0.1, 100))
    assert chosen(RoutingPolicy.BALANCED, free, paid)[0] == ["b", "a"]


def test_auto_buys_the_best_quality_per_dollar_among_those_that_are_good_at_the_task():
    strong = candidate(A, usd=10, quality={"code": 0.90, "chat": 0.9})
    nearly = candidate(B, usd=2, quality={"code": 0.85, "chat": 0.9})
    weak = candidate(C, usd=0.1, quality={"code": 0.40, "chat": 0.88})
    order, reason = chosen(RoutingPolicy.AUTO, strong, nearly, weak)
    assert order == ["b", "a", "c"]
    assert reason == "auto for code: quality 0.85, $2.00/M vs quality 0.90, $10.00/M at p/a"
    assert chosen(RoutingPolicy.AUTO, strong, nearly, weak, need=replace(NEED, task="chat"))[0] == ["c", "b", "a"]


def test_auto_without_scores_for_the_task_is_balanced():
    assert chosen(RoutingPolicy.AUTO, candidate(A, usd=9), candidate(B, usd=1))[1].startswith("balanced:")


def test_auto_falls_back_on_the_score_over_all_tasks():
    order, _ = chosen(
        RoutingPolicy.AUTO, candidate(A, usd=1, quality={"": 0.2}), candidate(B, usd=1, quality={"": 0.9})
    )
    assert order == ["b", "a"]


def replica(origin, running=0, waiting=0, kv=0.0, **more):
    engine = EngineLoad(num_running=running, num_waiting=waiting, kv_usage=kv)
    return Candidate(target=A, origin=origin, readiness=Readiness.READY, engine=engine, **more)


def test_least_loaded_counts_requests_and_a_queue_more_when_the_cache_is_full():
    policy = RoutingPolicy.LEAST_LOADED
    order, reason = chosen(policy, replica("x", running=18, waiting=3), replica("y", running=20))
    assert order == ["y", "x"]
    assert reason == "least loaded: 0 waiting, 20 running, KV cache 0% vs 3 waiting, 18 running, KV cache 0% at p/a"
    assert chosen(policy, replica("x", running=10, waiting=6), replica("y", running=20))[0] == ["x", "y"]
    assert chosen(policy, replica("x", running=10, waiting=6, kv=0.9), replica("y", running=20))[0] == ["y", "x"]


def test_least_loaded_does_not_let_a_late_reading_hide_what_is_under_way():
    policy = RoutingPolicy.LEAST_LOADED
    assert chosen(policy, replica("x", num_outstanding=9), replica("y", running=5))[0] == ["y", "x"]


def test_least_loaded_counts_what_was_sent_since_the_engine_was_asked():
    policy = RoutingPolicy.LEAST_LOADED
    assert chosen(policy, replica("x", running=2, num_since_poll=9), replica("y", running=5))[0] == ["y", "x"]


def test_least_loaded_gives_a_replica_that_wants_a_probe_its_chance():
    back = replace(replica("y", running=50), readiness=Readiness.PROBE)
    assert chosen(RoutingPolicy.LEAST_LOADED, replica("x"), back)[0] == ["y", "x"]


def test_prefix_affinity_prefers_the_longest_match_until_it_is_much_busier():
    policy = RoutingPolicy.PREFIX_AFFINITY
    order, reason = chosen(
        policy, replica("x"), replica("y", running=5, matched_tokens=512), need=Need(input_tokens=600)
    )
    assert order == ["y", "x"]
    assert reason == "prefix: 512 of 600 prompt tokens are likely in its cache"
    order, reason = chosen(policy, replica("x"), replica("y", running=50, matched_tokens=512))
    assert order == ["x", "y"]
    assert reason.startswith("prefix: replica with the prompt's front is too busy; least loaded:")
    assert chosen(policy, replica("x", running=1), replica("y"))[0] == ["y", "x"]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 2.0), (0.5, 0.0, 4.5), (3.0, 7.0, 0.0)])
def test_weighted_converges_to_its_shares(weights):
    draws = [(number * 0.6180339887498949) % 1.0 for number in range(2000)]
    pool = [candidate(A), candidate(B), candidate(C)]
    found = Counter(chosen(RoutingPolicy.WEIGHTED, *pool, weights=weights, draw=draw)[0][0] for draw in draws)
    for name, weight in zip("abc", weights, strict=True):
        assert found[name] / 2000 == pytest.approx(weight / sum(weights), abs=0.002)


@given(st.floats(0, 1, exclude_max=True))
def test_weighted_spreads_a_failed_targets_traffic_by_weight(draw):
    """Among the requests that A gets, B and C follow as 1 to 3: the draw within A's half decides."""
    order, reason = chosen(
        RoutingPolicy.WEIGHTED, candidate(A), candidate(B), candidate(C), weights=(4.0, 1.0, 3.0), draw=draw
    )
    if draw < 0.5:
        assert order == (["a", "b", "c"] if draw * 2 < 0.25 else ["a", "c", "b"])
        assert reason == "weighted: 50% of the traffic"


def test_weight_zero_is_only_used_when_nothing_else_is_up():
    for number in range(50):
        order, _ = chosen(RoutingPolicy.WEIGHTED, candidate(A), candidate(B), weights=(0.0, 1.0), draw=number / 50)
        assert order == ["b", "a"]
    assert chosen(RoutingPolicy.WEIGHTED, candidate(A), weights=(0.0,))[0] == ["a"]
