"""Reads the router's YAML file; anything wrong is refused with its line and the way out."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from mlaas.errors import ConfigError
from mlaas.located import line_of, nearest, reason_of
from mlaas.providers.build import KINDS, OPENAI_COMPATIBLE
from mlaas.providers.vllm import LOCAL
from mlaas.router.config import RouterConfig
from mlaas.router.types import Target


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
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError("bad_yaml", f"{source}:{line}: not valid YAML: {error.problem}") from error
    try:
        config = RouterConfig.model_validate({} if value is None else value)
    except ValidationError as error:
        first = error.errors()[0]
        raise _refuse(source, tree, first["loc"], reason_of(first, RouterConfig)) from error
    _check_providers(config, source, tree)
    _check_targets(config, source, tree)
    return config


def _check_providers(config: RouterConfig, source: str, tree: yaml.Node | None) -> None:
    for name, provider in config.providers.items():
        kind = provider.kind or name
        if name == LOCAL or "/" in name:
            raise _refuse(source, tree, ("providers", name), f"{name!r} cannot be a provider's name; choose another")
        if kind not in KINDS:
            place = ("providers", name, "kind") if provider.kind else ("providers", name)
            raise _refuse(
                source, tree, place, f"kind {kind!r} is not known{nearest(kind, KINDS)}; set kind: {'|'.join(KINDS)}"
            )
        if kind == OPENAI_COMPATIBLE and not provider.base_url:
            raise _refuse(source, tree, ("providers", name), f"kind {kind} needs a base_url")


def _check_targets(config: RouterConfig, source: str, tree: yaml.Node | None) -> None:
    names = (LOCAL, *config.providers)

    def check(target: Target, *location: int | str) -> None:
        if target.provider not in names:
            why = f"{target} names no provider of this file{nearest(target.provider, names)}"
            raise _refuse(source, tree, location, why)

    for alias, route in config.models.items():
        for index, each in enumerate(route.targets):
            check(each.target, "models", alias, "targets", index)
        for index, target in enumerate(route.burst.targets if route.burst else ()):
            check(target, "models", alias, "burst", "targets", index)
    for section in ("prices", "capabilities"):
        for name in getattr(config, section):
            provider, slash, model = name.partition("/")
            if not (slash and model):
                raise _refuse(source, tree, (section, name), f"{name!r} is not of the form provider/model")
            check(Target(provider=provider, model=model), section, name)


def _refuse(source: str, tree: yaml.Node | None, location: tuple[int | str, ...], why: str) -> ConfigError:
    field = ".".join(map(str, location)) or "the file"
    return ConfigError("bad_router_config", f"{source}:{line_of(tree, location)}: {field}: {why}")
