"""What is live right now: the local endpoints, the health of each address, and the requests under way."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mlaas.providers.base import Operation
from mlaas.providers.vllm import LOCAL
from mlaas.router.catalog import Catalog
from mlaas.router.health import UP, Health, Sign, readiness, step
from mlaas.router.types import Candidate, LocalEndpoint, Readiness, Route, Snapshot, Target

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Fleet:
    """The router's only mutable state about upstreams; `snapshot` freezes it for a decision.

    Args:
        catalog: the providers and aliases.
        restart_wait_s: how long a model counts as recovering after its last endpoint has gone.
    """

    def __init__(self, catalog: Catalog, *, restart_wait_s: float) -> None:
        self._catalog = catalog
        self._restart_wait_s = restart_wait_s
        self._origins: dict[str, tuple[str, ...]] = {}
        self._authorization: dict[str, dict[str, str]] = {}
        self._gone_at_s: dict[str, float] = {}
        self._health: dict[str, Health] = {}
        self._num_outstanding: defaultdict[str, int] = defaultdict(int)
        self._turn = 0
        self._deployed: frozenset[str] = frozenset()
        self.local_models: frozenset[str] = frozenset()
        """Local models that are deployed or have a live endpoint."""

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
            self._health.pop(origin, None)
            self._num_outstanding.pop(origin, None)
        self._origins = {model: tuple(sorted(group)) for model, group in sorted(origins.items())}
        self.local_models = self._deployed | self._origins.keys()

    def snapshot(self, route: Route, operation: Operation, *, now_s: float) -> Snapshot:
        """Return all that a decision about one request depends on."""
        self._turn += 1
        candidates: list[Candidate] = []
        is_recovering = False
        for target in route.targets:
            if target.provider == LOCAL and target.model not in self._origins:
                is_recovering |= now_s - self._gone_at_s.get(target.model, -1e9) < self._restart_wait_s
                absence = Readiness.STARTING if target.model in self._deployed else Readiness.ABSENT
                candidates.append(Candidate(target=target, origin="", readiness=absence))
            else:
                candidates += self._candidates(target, operation, now_s)
        return Snapshot(route=route, candidates=tuple(candidates), turn=self._turn, is_recovering=is_recovering)

    def authorization(self, origin: str) -> Mapping[str, str]:
        """Return the header that an endpoint's own key makes; empty for an address without one."""
        return self._authorization.get(origin, _NOTHING)

    def sent(self, origin: str, *, now_s: float) -> None:
        """Count a request that goes to an address."""
        self._num_outstanding[origin] += 1
        self._apply(origin, Sign.SENT, now_s)

    def ended(self, origin: str, sign: Sign, *, now_s: float) -> None:
        """Count a request as over, with what it says about the address, unless the address has gone meanwhile."""
        if origin in self._num_outstanding:
            self._num_outstanding[origin] = max(0, self._num_outstanding[origin] - 1)
            self._apply(origin, sign, now_s)

    def is_up(self, target: Target, *, now_s: float) -> bool:
        """Return whether some address of a target can take a request."""
        return any(
            each.readiness in (Readiness.READY, Readiness.PROBE)
            for each in self._candidates(target, Operation.CHAT, now_s)
        )

    def _candidates(self, target: Target, operation: Operation, now_s: float) -> list[Candidate]:
        provider = self._catalog.providers.get(target.provider)
        if provider is None:
            return [Candidate(target=target, origin="", readiness=Readiness.UNCONFIGURED)]
        if operation not in provider.operations:
            return [Candidate(target=target, origin="", readiness=Readiness.UNSUPPORTED)]
        origins = self._origins.get(target.model, ()) if target.provider == LOCAL else (provider.base_url,)
        return [
            Candidate(
                target=target,
                origin=origin,
                readiness=readiness(self._health.get(origin, UP), now_s=now_s),
                num_outstanding=self._num_outstanding.get(origin, 0),
            )
            for origin in origins
        ]

    def _apply(self, origin: str, sign: Sign, now_s: float) -> None:
        health = self._health.get(origin, UP)
        if health is UP and sign in (Sign.SENT, Sign.ALIVE, Sign.UNKNOWN):
            return
        self._health[origin] = step(health, sign, now_s=now_s)
