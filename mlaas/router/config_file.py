"""Reads the router's YAML file; anything wrong is refused with its line and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from mlaas.errors import ConfigError
from mlaas.located import Location, Place, nearest, read_document, validated
from mlaas.providers.build import KINDS, OPENAI_COMPATIBLE
from mlaas.providers.vllm import LOCAL
from mlaas.router.config import RouterConfig
from mlaas.router.types import Target

_CODE: Final = "bad_router_config"


def load_config(path: Path) -> RouterConfig:
    """Read the router's file.

    Args:
        path: a YAML file.

    Raises:
        ConfigError: the file is missing, is not YAML, or says something wrong; the message gives line, field, way out.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("unreadable_config", f"cannot read the router file {path}: {error}") from error
    return parse_config(text, source=str(path))


def parse_config(text: str, *, source: str) -> RouterConfig:
    """Read the router's file from its text.

    Args:
        text: YAML.
        source: the file's name, for messages.

    Raises:
        ConfigError: as in `load_config`.
    """
    value, place = read_document(text, source=source, code=_CODE)
    config = validated({} if value is None else value, RouterConfig, code=_CODE, place=place)
    _check_providers(config, place)
    _check_targets(config, place)
    return config


def _check_providers(config: RouterConfig, place: Place) -> None:
    for name, provider in config.providers.items():
        kind = provider.kind or name
        if name == LOCAL or "/" in name:
            raise _refuse(place, ("providers", name), f"{name!r} cannot be a provider's name; choose another")
        if kind not in KINDS:
            where = ("providers", name, "kind") if provider.kind else ("providers", name)
            why = f"kind {kind!r} is not known{nearest(kind, KINDS)}; set kind: {'|'.join(KINDS)}"
            raise _refuse(place, where, why)
        if kind == OPENAI_COMPATIBLE and not provider.base_url:
            raise _refuse(place, ("providers", name), f"kind {kind} needs a base_url")
        if provider.base_url is not None and not _is_url(provider.base_url):
            why = f"{provider.base_url!r} is no URL of an API; write one such as https://api.example.com/v1"
            raise _refuse(place, ("providers", name, "base_url"), why)


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.hostname)


def _check_targets(config: RouterConfig, place: Place) -> None:
    names = (LOCAL, *config.providers)

    def check(target: Target, *location: int | str) -> None:
        if target.provider not in names:
            why = f"{target} names no provider of this file{nearest(target.provider, names)}"
            raise _refuse(place, location, why)

    for alias, route in config.models.items():
        for index, each in enumerate(route.targets):
            check(each.target, "models", alias, "targets", index)
        for index, target in enumerate(route.burst.targets if route.burst else ()):
            check(target, "models", alias, "burst", "targets", index)
    for section in ("prices", "capabilities"):
        for name in getattr(config, section):
            provider, slash, model = name.partition("/")
            if not (slash and model):
                raise _refuse(place, (section, name), f"{name!r} is not of the form provider/model")
            check(Target(provider=provider, model=model), section, name)


def _refuse(place: Place, location: Location, why: str) -> ConfigError:
    return ConfigError(_CODE, f"{place(location)}: {'.'.join(map(str, location))}: {why}")
