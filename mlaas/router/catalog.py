"""The models that can be asked for, and what each name stands for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mlaas.errors import NotFound
from mlaas.providers.base import Provider
from mlaas.providers.build import build_provider
from mlaas.providers.vllm import LOCAL, VLLM
from mlaas.router.config import RouterConfig
from mlaas.router.types import Route, Target
from mlaas.settings import read_secret

# What a header and a log line can carry as it is.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}")


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Providers and aliases, as configured.

    Attributes:
        providers: those that can be called, by name; `local` is always one.
        unset: the environment variable that each other provider waits for.
        routes: aliases by name.
        listed: `provider/model` of the external models to show.
    """

    providers: Mapping[str, Provider]
    unset: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
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
            model: the caller's word.
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
        raise NotFound(
            "model_not_found", f"model {model[:300]!r} does not exist; there are: {', '.join(names) or 'none'}"
        )

    def names(self, local_models: Collection[str]) -> tuple[str, ...]:
        """Return all names that `/v1/models` shows, aliases first."""
        return tuple(dict.fromkeys((*self.routes, *sorted(local_models), *self.listed)))


def build_catalog(config: RouterConfig) -> Catalog:
    """Return the catalog of a configuration, with each key read from the environment.

    Raises:
        ConfigError: a provider's kind is not known or lacks what it needs.
    """
    providers: dict[str, Provider] = {LOCAL: VLLM()}
    unset: dict[str, str] = {}
    for name, each in config.providers.items():
        api_key = read_secret(each.api_key_env) if each.api_key_env else each.api_key
        if each.api_key_env and api_key is None:
            unset[name] = each.api_key_env
        else:
            providers[name] = build_provider(each.kind or name, name=name, base_url=each.base_url, api_key=api_key)
    external = [name for name in providers if name != LOCAL]
    return Catalog(
        providers=providers,
        unset=unset,
        routes={
            name: Route(
                model=name, targets=tuple(each.target for each in alias.targets), policy=alias.policy, is_alias=True
            )
            for name, alias in config.models.items()
        },
        listed=tuple(f"{name}/{model}" for name in external for model in config.providers[name].models),
    )
