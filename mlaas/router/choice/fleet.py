"""What is live right now: local endpoints, health, pace and load of each address, and the requests under way."""

from __future__ import annotations

import math
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from mlaas.providers.base import Failure, Operation
from mlaas.providers.vllm import LOCAL
from mlaas.router.catalog import Catalog
from mlaas.router.choice import burst as bursts
from mlaas.router.choice.addresses import Addresses, AddressState
from mlaas.router.choice.demand import Demand, demand
from mlaas.router.choice.health import Sign
from mlaas.router.choice.prefixes import Prefixes
from mlaas.router.choice.rate import Rate
from mlaas.router.types import (
    NO_BURST,
    NO_NEED,
    NO_OFFER,
    BurstState,
    Candidate,
    EngineLoad,
    LocalEndpoint,
    Need,
    Offer,
    Readiness,
    Route,
    Snapshot,
    Target,
)

ENGINE_STALE_S = 4.0
"""What an engine said longer ago counts for nothing."""
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_MATCH: Mapping[str, int] = MappingProxyType({})
_CAN_TRY = (Readiness.READY, Readiness.PROBE)
_TRANSLATED = (Operation.COMPLETION, Operation.RESPONSES, Operation.MESSAGES)
_EXTERNAL = Offer(is_external=True)
_MAX_KEPT = 4096
_GOLDEN = 0.6180339887498949


class _Seat(NamedTuple):
    """A target of a route, with what does not change about it."""

    target: Target
    address: str
    origin: str
    is_local: bool
    operations: frozenset[Operation] | None
    ready: Candidate
    """The target when the caller has named it and it is up: nothing else about it matters then."""


class _Plan(NamedTuple):
    route: Route
    seats: tuple[_Seat, ...]


class _Reading(NamedTuple):
    load: EngineLoad
    num_outstanding: int
    at_s: float


def no_offer(target: Target) -> Offer:
    """Return what is known of a target when nothing is: whether it is external."""
    return NO_OFFER if target.provider == LOCAL else _EXTERNAL


class Fleet:
    """The router's only mutable state about upstreams; `snapshot` freezes it for a decision.

    Args:
        catalog: the providers and aliases.
        restart_wait_s: how long a model counts as recovering after its last endpoint has gone.
        offer_of: what a target is: price, capabilities, quality, residency.
        num_queued: requests that wait here for a place at a local model.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        restart_wait_s: float,
        offer_of: Callable[[Target], Offer] = no_offer,
        num_queued: Callable[[str], int] | None = None,
    ) -> None:
        self._catalog = catalog
        self._restart_wait_s = restart_wait_s
        self._offer_of = offer_of
        self._num_queued = num_queued
        self._plans: dict[str, _Plan] = {}
        self._origins: dict[str, tuple[str, ...]] = {}
        self._authorization: dict[str, dict[str, str]] = {}
        self._gone_at_s: dict[str, float] = {}
        self._addresses = Addresses()
        self._engines: dict[str, _Reading] = {}
        self._bursts: dict[str, BurstState] = {}
        self._arrivals: dict[str, Rate] = {}
        self._prefixes = Prefixes()
        self._turn = 0
        self._deployed: frozenset[str] = frozenset()
        self.local_models: frozenset[str] = frozenset()
        """Local models that are deployed or have a live endpoint."""

    def replace_catalog(self, catalog: Catalog, offer_of: Callable[[Target], Offer]) -> None:
        """Take over a new configuration; what is known of addresses stays."""
        self._catalog = catalog
        self._offer_of = offer_of
        self._plans.clear()
        self._bursts = {name: state for name, state in self._bursts.items() if name in catalog.routes}

    def replace_deployed(self, models: Iterable[str]) -> None:
        """Take over the names of the models that are deployed, live or not."""
        self._deployed = frozenset(models)
        self.local_models = self._deployed | self._origins.keys()

    def replace_endpoints(self, endpoints: Iterable[LocalEndpoint]) -> None:
        """Take over the whole list of live endpoints."""
        origins: defaultdict[str, list[str]] = defaultdict(list)
        authorization: dict[str, dict[str, str]] = {}
        for endpoint in endpoints:
            origin = f"{endpoint.url.rstrip('/')}/v1"
            origins[endpoint.model].append(origin)
            if endpoint.api_key:
                authorization[origin] = {"authorization": f"Bearer {endpoint.api_key}"}
        self._authorization = authorization
        now_s = time.monotonic()
        for model in self._origins.keys() - origins.keys():
            self._gone_at_s[model] = now_s
        live = {origin for group in origins.values() for origin in group}
        gone = {origin for group in self._origins.values() for origin in group} - live
        for origin in gone:
            self._addresses.forget(origin)
            self._engines.pop(origin, None)
        self._prefixes.forget(gone)
        self._origins = {model: tuple(sorted(group)) for model, group in sorted(origins.items())}
        self.local_models = self._deployed | self._origins.keys()

    def replace_engine(self, origin: str, load: EngineLoad, *, now_s: float) -> None:
        """Take over what a replica's engine says, unless the replica has gone meanwhile."""
        if any(origin in group for group in self._origins.values()):
            self._engines[origin] = _Reading(load, self._addresses.num_outstanding(origin), now_s)

    def engines(self) -> Mapping[str, tuple[str, ...]]:
        """Return the base URLs of the live local replicas by model."""
        return self._origins

    def arrived(self, route: Route, *, now_s: float) -> None:
        """Count a request for the local models of a route, wherever it goes."""
        for target in route.targets:
            if target.provider == LOCAL:
                rate = self._arrivals.get(target.model)
                if rate is None:
                    rate = self._arrivals[target.model] = Rate()
                rate.count(now_s=now_s)

    def snapshot(
        self,
        route: Route,
        operation: Operation,
        *,
        now_s: float,
        need: Need = NO_NEED,
        blocks: Sequence[int] = (),
        session: str = "",
    ) -> Snapshot:
        """Return all that a decision about one request depends on.

        Args:
            route: what the request's model stands for.
            operation: what is asked.
            now_s: monotonic clock.
            need: what the request asks of a target.
            blocks: names of its prompt's blocks, for `prefix_affinity`.
            session: the caller's name for the conversation; all of it gets the same draw.
        """
        self._turn += 1
        plan = self._plans.get(route.model)
        if plan is None or (plan.route is not route and not _is_same(plan.route, route)):
            plan = self._plan(route)
        matched = self._prefixes.match(blocks) if blocks else _NO_MATCH
        candidates: list[Candidate] = []
        is_recovering = False
        for seat in plan.seats:
            if not seat.is_local:
                candidates.append(self._external(seat, route, operation, now_s))
            elif seat.target.model in self._origins:
                candidates += self._replicas(seat, operation, now_s, matched)
            else:
                candidates.append(self._absent(seat))
                is_recovering |= now_s - self._gone_at_s.get(seat.target.model, -1e9) < self._restart_wait_s
        return Snapshot(
            route=route,
            candidates=tuple(candidates),
            need=need,
            now_s=now_s,
            turn=self._turn,
            draw=zlib.crc32(session.encode()) / 2**32 if session else self._turn * _GOLDEN % 1.0,
            burst=self._burst(route, candidates, now_s) if route.burst is not None else NO_BURST,
            is_recovering=is_recovering,
        )

    def authorization(self, origin: str) -> Mapping[str, str]:
        """Return the header that an endpoint's own key makes; empty for an address without one."""
        return self._authorization.get(origin, _NOTHING)

    def sent(self, origin: str, *, now_s: float, target: Target | None = None, blocks: Sequence[int] = ()) -> None:
        """Count a request that goes to an address.

        Args:
            origin: base URL of the address.
            now_s: monotonic clock.
            target: the model asked there.
            blocks: names of the prompt's blocks.
        """
        self._addresses.sent(origin, target, now_s=now_s)
        if blocks and (target is None or target.provider == LOCAL):
            self._prefixes.add(origin, blocks)

    def ended(
        self, origin: str, sign: Sign, *, now_s: float, target: Target | None = None, failure: Failure | None = None
    ) -> None:
        """Count a request as over, with what it says about the address, unless the address has gone meanwhile.

        Args:
            origin: base URL of the address.
            sign: what the request has shown.
            now_s: monotonic clock.
            target: the model asked there.
            failure: how it failed; it may ask for a rest.
        """
        self._addresses.ended(origin, target, sign, failure, now_s=now_s)

    def observe(
        self,
        origin: str,
        *,
        target: Target,
        ttft_s: float | None,
        duration_s: float,
        output_tokens: int,
        now_s: float,
    ) -> None:
        """Take the timing of an answer that came to its end.

        Args:
            origin: base URL of the address.
            target: the model asked there.
            ttft_s: time to the first token; None when the answer was not streamed.
            duration_s: time to the last one.
            output_tokens: length of the answer.
            now_s: monotonic clock.
        """
        self._addresses.observe(
            origin, target, ttft_s=ttft_s, duration_s=duration_s, output_tokens=output_tokens, now_s=now_s
        )

    def is_up(self, target: Target, *, now_s: float) -> bool:
        """Return whether some address of a target can take a request."""
        shot = self.snapshot(Route(model=str(target), targets=(target,)), Operation.CHAT, now_s=now_s)
        return any(each.readiness in _CAN_TRY for each in shot.candidates)

    def demand(self, *, now_s: float, per_replica: int) -> tuple[Demand, ...]:
        """Return what callers want of each local model; what autoscaling reads.

        Args:
            now_s: monotonic clock.
            per_replica: requests that one replica takes at a time.
        """
        found: list[Demand] = []
        for model in sorted(self.local_models | self._arrivals.keys()):
            target = Target(provider=LOCAL, model=model)
            candidates = self.snapshot(
                Route(model=str(target), targets=(target,)), Operation.CHAT, now_s=now_s
            ).candidates
            rate = self._arrivals.get(model)
            per_s = rate.per_s(now_s=now_s) if rate is not None else 0.0
            found.append(demand(model, candidates, arrivals_per_s=per_s, per_replica=per_replica))
        return tuple(found)

    def unwell(self, *, now_s: float) -> list[AddressState]:
        """Return the addresses that are not ready, for metrics."""
        return self._addresses.unwell(now_s=now_s)

    def bursting(self) -> Mapping[str, BurstState]:
        """Return the aliases that overflow now."""
        return {name: state for name, state in self._bursts.items() if state.is_active}

    def _plan(self, route: Route) -> _Plan:
        extra = [each for each in route.burst.targets if each not in route.targets] if route.burst is not None else []
        plan = _Plan(route=route, seats=tuple(self._seat(target) for target in (*route.targets, *extra)))
        if len(self._plans) >= _MAX_KEPT:
            self._plans.clear()  # Callers choose the names behind `provider/`; the table must not grow with them.
        self._plans[route.model] = plan
        return plan

    def _seat(self, target: Target) -> _Seat:
        provider = self._catalog.providers.get(target.provider)
        is_local = target.provider == LOCAL
        operations: frozenset[Operation] | None = None
        if provider is not None:
            operations = provider.operations
            if Operation.CHAT in operations:
                operations = operations.union(_TRANSLATED)
        origin = provider.base_url if provider is not None and not is_local else ""
        return _Seat(
            target=target,
            address=str(target),
            origin=origin,
            is_local=is_local,
            operations=operations,
            ready=Candidate(target=target, origin=origin, readiness=Readiness.READY, offer=_EXTERNAL),
        )

    def _external(self, seat: _Seat, route: Route, operation: Operation, now_s: float) -> Candidate:
        target, address, origin, _, operations, ready = seat
        state, rest_s = Readiness.READY, 0.0
        if operations is None:
            state, origin = Readiness.UNCONFIGURED, ""
        elif operation not in operations:
            state, origin = Readiness.UNSUPPORTED, ""
        else:
            state, rest_s = self._addresses.state(origin, address, now_s=now_s)
        if not route.is_alias:
            if state is Readiness.READY:
                return ready
            return Candidate(target=target, origin=origin, readiness=state, rest_s=rest_s, offer=_EXTERNAL)
        return Candidate(
            target=target,
            origin=origin,
            readiness=state,
            num_outstanding=self._addresses.num_outstanding(address),
            rest_s=rest_s,
            offer=self._offer_of(target),
            pace=self._addresses.pace(address, now_s=now_s),
        )

    def _replicas(self, seat: _Seat, operation: Operation, now_s: float, matched: Mapping[str, int]) -> list[Candidate]:
        target = seat.target
        if seat.operations is None or operation not in seat.operations:
            return [Candidate(target=target, origin="", readiness=Readiness.UNSUPPORTED)]
        origins = self._origins[target.model]
        offer = self._offer_of(target)
        queued = self._num_queued(target.model) if self._num_queued is not None else 0
        share = math.ceil(queued / len(origins)) if queued else 0
        found: list[Candidate] = []
        for origin in origins:
            state, rest_s = self._addresses.state(origin, "", now_s=now_s)
            outstanding = self._addresses.num_outstanding(origin)
            reading = self._engines.get(origin)
            is_fresh = reading is not None and now_s - reading.at_s <= ENGINE_STALE_S
            found.append(
                Candidate(
                    target=target,
                    origin=origin,
                    readiness=state,
                    num_outstanding=outstanding,
                    num_queued=share,
                    num_since_poll=outstanding - reading.num_outstanding if reading is not None and is_fresh else 0,
                    rest_s=rest_s,
                    offer=offer,
                    pace=self._addresses.pace(origin, now_s=now_s),
                    engine=reading.load if reading is not None and is_fresh else None,
                    matched_tokens=matched.get(origin, 0),
                )
            )
        return found

    def _absent(self, seat: _Seat) -> Candidate:
        model = seat.target.model
        absence = Readiness.STARTING if model in self._deployed else Readiness.ABSENT
        queued = self._num_queued(model) if self._num_queued is not None else 0
        return Candidate(target=seat.target, origin="", readiness=absence, num_queued=queued)

    def _burst(self, route: Route, candidates: Sequence[Candidate], now_s: float) -> BurstState:
        """Step an alias's burst by the pressure on its home, and return where it stands."""
        limits = route.burst
        if limits is None:
            return NO_BURST
        home = [each for each in candidates if each.target not in limits.targets]
        ratio = bursts.pressure(home, limits, route.slo).ratio
        state = bursts.step(self._bursts.get(route.model, NO_BURST), ratio, limits, now_s=now_s)
        self._bursts[route.model] = state
        return state


def _is_same(one: Route, other: Route) -> bool:
    return one.targets == other.targets and one.burst == other.burst
