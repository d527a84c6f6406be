"""The router's YAML file, read into typed values; anything wrong is refused with its line and the way out."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mlaas.errors import ConfigError
from mlaas.providers.build import KINDS, OPENAI_COMPATIBLE
from mlaas.providers.vllm import LOCAL
from mlaas.router.types import RoutingPolicy, Target


def _parse_target(value: object) -> object:
    if not isinstance(value, str):
        return value
    provider, slash, model = value.partition("/")
    if not (provider and slash and model):
        raise ValueError(f"{value!r} is not a target; write provider/model, such as {LOCAL}/tiny-python")
    return Target(provider=provider, model=model)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, arbitrary_types_allowed=True)


class ProviderConfig(_Strict):
    """One upstream provider."""

    kind: str | None = None
    """Wire format. None: the provider's own name, which must then be a kind."""
    base_url: str | None = None
    """URL that ends where `/chat/completions` begins. None: the vendor's own."""
    api_key_env: str | None = None
    """Environment variable with the key. While it is unset, the provider's models are not offered."""
    api_key: str | None = Field(default=None, repr=False)
    """The key itself, for an upstream where it is no secret."""
    models: tuple[str, ...] = ()
    """Model names that `/v1/models` lists. Any other name of the provider can be called all the same."""

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if self.api_key_env and self.api_key:
            raise ValueError("give api_key_env or api_key, not both")
        return self


class AliasConfig(_Strict):
    """One model name of ours that stands for targets."""

    targets: tuple[Annotated[Target, BeforeValidator(_parse_target)], ...] = Field(min_length=1)
    """`provider/model` each, in order of preference."""
    policy: RoutingPolicy = RoutingPolicy.FAILOVER
    """How to choose among the targets."""


class TimeoutConfig(_Strict):
    """How long an upstream may stay silent, in seconds."""

    connect_s: float = Field(default=5.0, gt=0)
    """Until the connection stands."""
    first_byte_s: float = Field(default=600.0, gt=0)
    """Until the first byte of the answer: all of the generation when it is not streamed; OpenAI's SDK waits as long."""
    between_bytes_s: float = Field(default=60.0, gt=0)
    """Between two reads of an answer that has begun."""
    restart_wait_s: float = Field(default=3.0, ge=0)
    """How long a request waits for a replica that is expected back. 0: not at all."""


class RouterConfig(_Strict):
    """All that the router is told."""

    providers: dict[str, ProviderConfig] = {}
    """By the name that stands before the slash."""
    models: dict[str, AliasConfig] = {}
    """Aliases by name."""
    timeouts: TimeoutConfig = TimeoutConfig()
    """Bounds on waiting."""


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
        raise _refuse(source, tree, first["loc"], _describe(first)) from error
    _check_names(config, source, tree)
    return config


def _check_names(config: RouterConfig, source: str, tree: yaml.Node | None) -> None:
    for name, provider in config.providers.items():
        kind = provider.kind or name
        if name == LOCAL or "/" in name:
            raise _refuse(source, tree, ("providers", name), f"{name!r} cannot be a provider's name; choose another")
        if kind not in KINDS:
            place = ("providers", name, "kind") if provider.kind else ("providers", name)
            raise _refuse(
                source, tree, place, f"kind {kind!r} is not known{_nearest(kind, KINDS)}; set kind: {'|'.join(KINDS)}"
            )
        if kind == OPENAI_COMPATIBLE and not provider.base_url:
            raise _refuse(source, tree, ("providers", name), f"kind {kind} needs a base_url")
    names = (LOCAL, *config.providers)
    for alias, route in config.models.items():
        for index, target in enumerate(route.targets):
            if target.provider not in names:
                why = f"{target} names no provider of this file{_nearest(target.provider, names)}"
                raise _refuse(source, tree, ("models", alias, "targets", index), why)


def _describe(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        field = str(error["loc"][-1])
        fields = _fields_at(error["loc"][:-1])
        return f"unknown field {field!r}{_nearest(field, fields)}; known: {', '.join(fields)}"
    return str(error["msg"]).removeprefix("Value error, ")


def _fields_at(location: tuple[int | str, ...]) -> tuple[str, ...]:
    models: dict[str, type[BaseModel]] = {"providers": ProviderConfig, "models": AliasConfig, "timeouts": TimeoutConfig}
    model = models[str(location[0])] if location else RouterConfig
    return tuple(model.model_fields)


def _nearest(name: str, names: tuple[str, ...]) -> str:
    found = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {found[0]!r}?" if found else ""


def _refuse(source: str, tree: yaml.Node | None, location: tuple[int | str, ...], why: str) -> ConfigError:
    field = ".".join(map(str, location)) or "the file"
    return ConfigError("bad_router_config", f"{source}:{_line_of(tree, location)}: {field}: {why}")


def _line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Return the line of the deepest node on the way to `location`."""
    line = node.start_mark.line + 1 if node is not None else 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line
