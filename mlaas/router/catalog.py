"""The models that can be asked for, and what each name stands for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mlaas.errors import NotFound
from mlaas.located import nearest
from mlaas.providers.base import Provider
from mlaas.providers.build import build_provider
from mlaas.providers.vllm import LOCAL, VLLM
from mlaas.router.config import AliasConfig, ProviderConfig, ProviderKey, RouterConfig
from mlaas.router.types import BalanceWeights, BurstLimits, Route, Slo, Target
from mlaas.router.virtual.config import VirtualConfig, check_recursion, members
from mlaas.settings import read_secret

# What a header and a log line can carry as it is.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}")


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Providers and aliases, as configured.

    Attributes:
        providers: those that can be called, by name; `local` is always one.
        keyed: the same provider with each of its keys, where there are several, with the key's weight.
        unset: the environment variable that each other provider waits for.
        routes: aliases with targets, by name.
        virtual: aliases made of other models, by name.
        listed: `provider/model` of the external models to show.
    """

    providers: Mapping[str, Provider]
    keyed: Mapping[str, tuple[tuple[Provider, float], ...]] = field(default_factory=dict)
    unset: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    virtual: Mapping[str, VirtualConfig] = field(default_factory=dict)
    listed: tuple[str, ...] = ()

    @cached_property
    def local_names(self) -> frozenset[str]:
        """Local models that the aliases name, deployed or not."""
        return frozenset(
            target.model for route in self.routes.values() for target in route.targets if target.provider == LOCAL
        )

    def resolve(self, model: str, *, local_models: Collection[str]) -> Route:
        """Return what a model name stands for.

        An alias comes first, then a local model, then `provider/model`.

        Args:
            model: the caller's word; not the name of a virtual model.
            local_models: local models that are deployed.

        Raises:
            NotFound: it stands for nothing; the message lists what there is.
        """
        route = self.routes.get(model)
        if route is not None:
            return route
        if model in local_models or model in self.local_names:
            return Route(model=model, targets=(Target(provider=LOCAL, model=model),))
        provider, slash, name = model.partition("/")
        if slash and _NAME.fullmatch(name):
            if provider in self.providers and (provider != LOCAL or name in local_models or name in self.local_names):
                return Route(model=model, targets=(Target(provider=provider, model=name),))
            if provider in self.unset:
                raise NotFound(
                    "model_not_found", f"model {model!r} needs the gateway to have {self.unset[provider]} set"
                )
        names = self.names(local_models)
        shown = model[:300]
        near = nearest(shown, [*names, *(f"{each}/{name}" for each in self.providers if each != LOCAL)])
        any_of = "".join(f", {each}/MODEL" for each in self.providers if each != LOCAL)
        known = f"{', '.join(names) or 'none'}{any_of}"
        raise NotFound("model_not_found", f"model {shown!r} does not exist{near}; there are: {known}")

    def names(self, local_models: Collection[str]) -> tuple[str, ...]:
        """Return all names that `/v1/models` shows, aliases first."""
        return tuple(dict.fromkeys((*self.routes, *self.virtual, *sorted(local_models), *self.listed)))


def build_catalog(config: RouterConfig) -> Catalog:
    """Return the catalog of a configuration, with each key read from the environment.

    Raises:
        ConfigError: a provider's kind is not known or lacks what it needs, or a virtual model asks itself.
    """
    providers: dict[str, Provider] = {LOCAL: VLLM()}
    keyed: dict[str, tuple[tuple[Provider, float], ...]] = {}
    unset: dict[str, str] = {}
    for name, each in config.providers.items():
        keys = _read_keys(each)
        if keys:
            kind = each.kind or name
            built = [
                (build_provider(kind, name=name, base_url=each.base_url, api_key=secret), weight)
                for secret, weight in keys
            ]
            providers[name] = built[0][0]
            if len(built) > 1:
                keyed[name] = tuple(built)
        else:
            unset[name] = " or ".join(key.api_key_env for key in _keys(each) if key.api_key_env)
    virtual = {name: alias.virtual for name, alias in config.models.items() if alias.virtual is not None}
    check_recursion({name: members(each) for name, each in virtual.items()})
    external = [name for name in providers if name != LOCAL]
    return Catalog(
        providers=providers,
        keyed=keyed,
        unset=unset,
        routes={name: _route(name, alias) for name, alias in config.models.items() if alias.targets},
        virtual=virtual,
        listed=tuple(f"{name}/{model}" for name in external for model in config.providers[name].models),
    )


def _keys(config: ProviderConfig) -> tuple[ProviderKey, ...]:
    if config.api_key_env or config.api_key:
        return (ProviderKey(api_key_env=config.api_key_env, api_key=config.api_key),)
    return config.keys


def _read_keys(config: ProviderConfig) -> list[tuple[str | None, float]]:
    """Return each key that is there, with its weight; one that is None for a provider that asks for no key."""
    keys = _keys(config)
    if not keys:
        return [(None, 1.0)]
    secrets = ((read_secret(key.api_key_env) if key.api_key_env else key.api_key, key.weight) for key in keys)
    return [(secret, weight) for secret, weight in secrets if secret is not None]


def _route(name: str, alias: AliasConfig) -> Route:
    burst = alias.burst
    return Route(
        model=name,
        targets=tuple(each.target for each in alias.targets),
        policy=alias.policy,
        is_alias=True,
        weights=tuple(each.weight for each in alias.targets),
        slo=Slo(ttft_s=alias.slo.ttft_s, tokens_per_s=alias.slo.tokens_per_s),
        burst=BurstLimits(
            targets=burst.targets,
            max_queue=burst.max_queue,
            ttft_s=burst.ttft_s,
            return_ratio=burst.return_ratio,
            hold_s=burst.hold_s,
            cold_start=burst.cold_start,
        )
        if burst is not None
        else None,
        residency=tuple(sorted(alias.residency)),
        balance=BalanceWeights(cost=alias.balance.cost, latency=alias.balance.latency, quality=alias.balance.quality),
        hedge_after_s=alias.hedge_after_s,
        max_attempts=alias.max_attempts,
    )
