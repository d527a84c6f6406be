"""Limits under crashes: replicas, the ledger, the store and the network fail in any order, and no limit is exceeded."""

from __future__ import annotations

import asyncio
import operator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlaas.auth.types import KeyLimits
from mlaas.errors import LimitExceeded
from mlaas.router.limits.budgets import NANOS
from mlaas.router.limits.meter import Reservation
from mlaas.router.limits.shares import BudgetShare
from mlaas.router.limits.types import LEASE_S, TICK_S, WINDOW_S
from tests.unit.router.limits.replicas import Clock, Cluster, Replica

NUM_REPLICAS = 3
NUMBERS = st.integers(0, NUM_REPLICAS - 1)
RARELY = st.sampled_from([False, False, False, True])


@dataclass(eq=False)
class Admission:
    """A request that was let in, and what became of it.

    Attributes:
        nanos: reserved while it is open, then spent.
        is_counted: the ledger can know that it lies in the window.
        is_placed: the ledger can know that it holds a slot.
    """

    replica: Replica
    reservation: Reservation
    at_s: float
    tokens: int
    nanos: int
    is_open: bool = True
    is_counted: bool = True
    is_placed: bool = True


class Limits(RuleBasedStateMachine):
    """Three replicas of a gateway, and one key with every limit."""

    @initialize(
        rpm=st.integers(1, 12), tpm=st.integers(5, 60), concurrency=st.integers(1, 12), nanos=st.integers(1, 600)
    )
    def start(self, rpm: int, tpm: int, concurrency: int, nanos: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.cluster = Cluster(self.clock)
        self.limits = KeyLimits(rpm=rpm, tpm=tpm, concurrency=concurrency, budget_usd=nanos / NANOS, budget_per="month")
        self.nanos = nanos
        self.replicas = [Replica(self.cluster) for _ in range(NUM_REPLICAS)]
        self.admissions: list[Admission] = []
        self.settled_s = float("-inf")

    @rule(
        numbers=st.lists(NUMBERS, min_size=1, max_size=8),
        tokens=st.sampled_from([0, 0, 1, 7, 20]),
        nanos=st.sampled_from([0, 0, 1, 30, 200]),
        fixed=st.none() | st.integers(0, 50),
        num_exchanges=st.sampled_from([0, 1, 3, 3, 3]),
    )
    def ask(self, numbers: list[int], tokens: int, nanos: int, fixed: int | None, num_exchanges: int) -> None:
        for number in numbers:
            self.ask_one(self.replicas[number], tokens, nanos, fixed, num_exchanges)

    @precondition(lambda self: any(each.is_open for each in self.admissions))
    @rule(which=st.integers(0, 1000), used=st.fractions(0, 1))
    def settle(self, which: int, used: Fraction) -> None:
        opened = [each for each in self.admissions if each.is_open]
        self.end(opened[which % len(opened)], used)

    @rule(number=NUMBERS)
    def exchange(self, number: int) -> None:
        self.loop.run_until_complete(self.replicas[number].meter.exchange())

    @rule(seconds=st.sampled_from([0.01, 0.25, 1.0, 4.9, 5.0, 20.0, 59.9, 60.0, 90.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule(number=NUMBERS, loses_reports=RARELY, loses_replies=RARELY)
    def break_network(self, number: int, loses_reports: bool, loses_replies: bool) -> None:
        network = self.replicas[number].network
        network.loses_reports, network.loses_replies = loses_reports, loses_replies

    @rule(is_out=RARELY)
    def break_store(self, is_out: bool) -> None:
        self.cluster.store.is_out = is_out

    @rule(number=NUMBERS)
    def kill_replica(self, number: int) -> None:
        replica = self.replicas[number]
        for admission in self.admissions:
            if admission.replica is replica:
                admission.is_open = False
                admission.is_counted &= replica.network.is_known
        self.replicas[number] = Replica(self.cluster)

    @rule(is_back_at_once=RARELY.map(operator.not_))
    def kill_ledger(self, is_back_at_once: bool) -> None:
        self.cluster.kill_ledger()
        for replica in self.replicas:
            replica.network.is_known = False
        # The one thing that is forgotten: what a replica used that is dead when the ledger dies.
        for admission in self.admissions:
            admission.is_counted &= admission.replica in self.replicas
        if is_back_at_once:
            self.restart_ledger()

    @precondition(lambda self: self.cluster.ledger is None)
    @rule()
    def restart_ledger(self) -> None:
        self.cluster.restart_ledger()
        self.settled_s = self.clock() + LEASE_S

    @invariant()
    def money_is_never_overspent(self) -> None:
        assert sum(each.nanos for each in self.admissions) <= self.nanos

    @invariant()
    def no_window_and_no_moment_holds_more_than_the_limit(self) -> None:
        for admission in self.admissions:
            network = admission.replica.network
            # Or that is cut off from the time when the ledger dies until the next one has listened enough.
            is_unheard = not network.is_known and self.cluster.ledger is not None and self.clock() >= self.settled_s
            admission.is_counted &= not is_unheard
            admission.is_placed &= not is_unheard and self.clock() < network.heard_s + LEASE_S
        inside = [each for each in self.admissions if each.is_counted and each.at_s > self.clock() - WINDOW_S]
        assert len(inside) <= self.limits.rpm
        assert sum(each.tokens for each in inside) <= self.limits.tpm
        assert len([each for each in self.admissions if each.is_open and each.is_placed]) <= self.limits.concurrency

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            try:
                self.check_that_nothing_was_lost()
            finally:
                self.loop.close()

    def ask_one(self, replica: Replica, tokens: int, nanos: int, fixed: int | None, num_exchanges: int) -> None:
        outcome = self.loop.run_until_complete(
            replica.reserve(
                self.limits,
                tokens=tokens,
                cost_usd=nanos / NANOS,
                fixed_usd=None if fixed is None else min(fixed, nanos) / NANOS,
                usd_per_output_token=None if fixed is None else 3 / NANOS,
                num_exchanges=num_exchanges,
            )
        )
        if isinstance(outcome, Reservation):
            [held] = [hold.units for hold in outcome.holds if isinstance(hold.share, BudgetShare)]
            if outcome.max_output_tokens is None:
                assert held == nanos
            else:
                assert outcome.max_output_tokens >= 1
                assert min(fixed or 0, nanos) + 3 * outcome.max_output_tokens <= held < nanos
            self.admissions.append(
                Admission(replica=replica, reservation=outcome, at_s=self.clock(), tokens=tokens, nanos=held)
            )

    def end(self, admission: Admission, used: Fraction) -> None:
        admission.is_open = False
        admission.nanos, admission.tokens = int(admission.nanos * used), int(admission.tokens * used)
        meter, reservation = admission.replica.meter, admission.reservation
        meter.settle(reservation, tokens=admission.tokens, cost_usd=admission.nanos / NANOS)
        meter.settle(reservation, tokens=10**6, cost_usd=Decimal(10**6))  # Changes nothing.

    def check_that_nothing_was_lost(self) -> None:
        """Mend all that is broken, end all requests: what living replicas did not use is there for others again."""
        if self.cluster.ledger is None:
            self.restart_ledger()
        self.cluster.store.is_out = False
        for admission in self.admissions:
            if admission.is_open:
                self.end(admission, Fraction(1))
        for replica in self.replicas:
            replica.network.loses_reports = replica.network.loses_replies = False
        for _ in range(12):
            self.clock.now_s += TICK_S
            for replica in self.replicas:
                self.loop.run_until_complete(replica.meter.exchange())
        alive = [each for each in self.admissions if each.replica in self.replicas]
        rows = self.cluster.store.rows.values()
        returned = [row for row in rows if row.granted_nanos == row.returned_nanos + row.spent_nanos]
        living = [row for row in rows if row.replica_id in {replica.meter.replica_id for replica in self.replicas}]
        assert all(row in returned for row in living)
        assert sum(row.spent_nanos for row in living) == sum(each.nanos for each in alive)
        assert sum(row.granted_nanos - row.returned_nanos for row in rows) <= self.nanos
        self.clock.now_s += WINDOW_S + 2 * LEASE_S + TICK_S
        self.exchange(0)
        fresh = Replica(self.cluster)
        for _ in range(self.limits.rpm):
            outcome = self.loop.run_until_complete(fresh.reserve(self.limits))
            assert isinstance(outcome, Reservation)
            fresh.meter.settle(outcome, tokens=0, cost_usd=Decimal(0))
        assert isinstance(self.loop.run_until_complete(fresh.reserve(self.limits)), LimitExceeded)


TestLimits = Limits.TestCase
TestLimits.settings = settings(
    max_examples=50, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
