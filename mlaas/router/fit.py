"""Makes a request fit its target: who speaks there, with which key, in which API, without what it cannot honour."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import orjson

from mlaas.providers.base import Call, Failure, FailureKind, FieldError, Provider, ProviderFailed, WireRequest
from mlaas.providers.key_pool import KeyPool
from mlaas.router.abilities import Abilities
from mlaas.router.catalog import Catalog
from mlaas.router.config import RouterConfig
from mlaas.router.dialects.base import Dialect
from mlaas.router.money.billing import cap_output
from mlaas.router.types import Target

Unsupported = Callable[[Target, Call], Iterable[str]]
"""Names the fields of a call that a target is known not to honour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A request as one target gets it.

    Attributes:
        asked: the caller's request, without the fields that were dropped.
        sent: the same, or the chat that it was translated to.
        request: what goes over the wire.
        key: which of the provider's keys it carries.
        dropped: fields that were left out, by their names in the caller's API or in a chat.
    """

    asked: Call
    sent: Call
    provider: Provider
    request: WireRequest
    key: int = 0
    dropped: tuple[str, ...] = ()


class Fitter:
    """Fits requests to targets, and spreads them over the keys of a provider.

    Args:
        catalog: providers with their keys.
        droppable: fields that may be left out where they cannot be honoured, by alias and by provider.
        unsupported: what models are known not to honour.
    """

    def __init__(self, catalog: Catalog, *, droppable: Mapping[str, Collection[str]], unsupported: Unsupported) -> None:
        self._catalog = catalog
        self._droppable = droppable
        self._unsupported = unsupported
        self._pools = {name: KeyPool([weight for _, weight in keyed]) for name, keyed in catalog.keyed.items()}

    def fit(self, call: Call, target: Target, *, alias: str, dialect: Dialect, max_output_tokens: int | None) -> Fitted:
        """Return a request as a target gets it.

        Args:
            call: the caller's request.
            target: who gets it.
            alias: the name it was asked for.
            dialect: the caller's.
            max_output_tokens: bound that the key's budget sets on the answer. None: no bound.

        Raises:
            ProviderFailed: the target cannot honour a field that may not be dropped, or all of its keys rest; another
                target may.
        """
        provider, key = self._pick(target.provider)
        may_drop = _Droppable({*self.droppable(alias), *self._droppable.get(f"{target.provider}/", ())})
        if max_output_tokens is not None:
            call = cap_output(call, max_output_tokens)
        sent = call = self._without_unsupported(call, target, may_drop)
        while call.operation not in provider.operations:
            try:
                sent = dialect.to_chat(call)
            except FieldError as error:
                call = may_drop.drop(call, error)
            else:
                may_drop.translate(call, dialect)
                sent = self._without_unsupported(sent, target, may_drop)
                break
        while True:
            try:
                request = provider.encode_request(sent, model=target.model)
                dropped = tuple(may_drop.dropped)
                return Fitted(asked=call, sent=sent, provider=provider, request=request, key=key, dropped=dropped)
            except FieldError as error:
                sent = may_drop.drop(sent, error)

    def _without_unsupported(self, call: Call, target: Target, may_drop: _Droppable) -> Call:
        """Return the call without what the target is known not to honour.

        Raises:
            ProviderFailed: that may not be dropped.
        """
        for name in self._unsupported(target, call):
            call = may_drop.drop(call, FieldError(name, f"{target} cannot honour {name!r}"))
        return call

    def droppable(self, alias: str) -> Collection[str]:
        """Return the fields of requests for an alias that may be left out."""
        return self._droppable.get(alias, ())

    def report(self, fitted: Fitted, failure: Failure) -> bool:
        """Take note of a failure, and tell whether it only concerns one of several keys.

        A key that is refused rests, while the provider's other keys serve.
        """
        pool = self._pools.get(fitted.provider.name)
        return pool is not None and pool.report(fitted.key, failure, time.monotonic())

    def has_key(self, provider: str) -> bool:
        """Return whether a provider of several keys has one that does not rest."""
        return provider in self._pools and self._pools[provider].is_awake(time.monotonic())

    def _pick(self, name: str) -> tuple[Provider, int]:
        pool = self._pools.get(name)
        if pool is None:
            return self._catalog.providers[name], 0
        key = pool.pick(time.monotonic())
        return self._catalog.keyed[name][key][0], key


class _Droppable:
    """Fields that may be left out of one request.

    Attributes:
        dropped: those that were, in order.
    """

    __slots__ = ("_names", "_translated", "dropped")

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._translated: tuple[Call, Dialect] | None = None
        self.dropped: list[str] = []

    def translate(self, call: Call, dialect: Dialect) -> None:
        """From here on, errors are about the chat that a call has become; name its fields as the caller did."""
        self._translated = call, dialect

    def drop(self, call: Call, error: FieldError) -> Call:
        """Return the call without the field that an error names.

        Raises:
            ProviderFailed: the field may not be dropped.
        """
        name = error.param.partition(".")[0].partition("[")[0]
        if name not in self._names or name not in call.fields:
            param, message = error.param, error.message
            if self._translated is not None:
                call, dialect = self._translated
                own = dialect.own_name(call, name)
                if own != name or name == "messages":
                    # A place inside of the messages is another one in the caller's API.
                    param, message = own, message.replace(repr(param), repr(own))
            failure = Failure(
                kind=FailureKind.UNFIT,
                status=400,
                code=error.code,
                message=message,
                type="invalid_request_error",
                param=param,
            )
            raise ProviderFailed(failure) from error
        self.dropped.append(name)
        fields = {field: value for field, value in call.fields.items() if field != name}
        return replace(call, fields=fields, body=orjson.dumps(fields))


def build_fitter(config: RouterConfig, catalog: Catalog, abilities: Abilities) -> Fitter:
    """Return the fitter of a configuration."""
    droppable = {
        **{name: each.drop_params for name, each in config.models.items()},
        **{f"{name}/": each.drop_params for name, each in config.providers.items()},
    }
    return Fitter(catalog, droppable=droppable, unsupported=abilities.unsupported)
