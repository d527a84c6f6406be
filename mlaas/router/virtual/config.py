"""Virtual models as the router's file describes them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Self

import jsonschema  # type: ignore[import-untyped]  # it ships no types
from pydantic import Field, field_validator, model_validator

from mlaas.errors import ConfigError
from mlaas.router.section import Strict


def checked_regex(value: str | None) -> str | None:
    """Return a pattern as it is.

    Raises:
        ValueError: it is not a regular expression.
    """
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error
    return value


def checked_schema(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a JSON Schema as it is.

    Raises:
        ValueError: it is none.
    """
    try:
        jsonschema.Draft202012Validator.check_schema(value or {})
    except jsonschema.SchemaError as error:
        raise ValueError(f"not a JSON Schema: {error.message}") from error
    return value


class CheckConfig(Strict):
    """What an answer must hold to be good enough. An answer that calls tools has no text to check: it passes all."""

    regex: str | None = None
    """A pattern that must be found in the text."""
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    """JSON Schema of the text, which must then be JSON."""
    min_chars: int | None = Field(default=None, ge=1)
    """Least length of the text, blanks around it aside."""
    finish_reason: tuple[str, ...] = ()
    """Reasons that are accepted, such as `[stop]`. Empty: any, also `length`."""
    judge: str | None = None
    """A model that says whether the text is a good answer; it is asked last, when all else holds."""

    @field_validator("regex")
    @classmethod
    def _check_regex(cls, value: str | None) -> str | None:
        return checked_regex(value)

    @field_validator("json_schema")
    @classmethod
    def _check_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return checked_schema(value)

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not (self.regex or self.json_schema or self.min_chars or self.finish_reason or self.judge):
            raise ValueError("give at least one of regex, schema, min_chars, finish_reason and judge")
        return self


class CascadeConfig(Strict):
    """Cheap first: the next model is asked only when an answer does not pass the check, or the model fails."""

    steps: tuple[str, ...] = Field(min_length=2)
    """Models, the cheapest first. The last one's answer is taken as it is."""
    check: CheckConfig
    """What the answers before the last must hold."""


class Combine(StrEnum):
    """How one answer comes of several."""

    MAJORITY = "majority"
    """The one most members gave, up to case, blanks and closing punctuation; of equals, the earlier model's."""
    JUDGE = "judge"
    """The one that the judge calls the best."""
    SYNTHESIS = "synthesis"
    """A new one that the judge writes from all."""


class EnsembleConfig(Strict):
    """Several models at once, and one answer of theirs."""

    models: tuple[str, ...] = Field(min_length=2)
    """Members, all asked at the same time; a name may stand here twice."""
    combine: Combine = Combine.MAJORITY
    """How one answer comes of theirs."""
    judge: str | None = None
    """The model that judges or synthesises."""
    quorum: int = Field(default=1, ge=1)
    """Members that must answer; with fewer the call fails."""

    @model_validator(mode="after")
    def _check_judge(self) -> Self:
        if (self.judge is None) is not (self.combine is Combine.MAJORITY):
            raise ValueError("combine: judge and combine: synthesis need a judge; combine: majority takes none")
        if self.quorum > len(self.models):
            raise ValueError(f"a quorum of {self.quorum} cannot come of {len(self.models)} models")
        return self


class PipelineStep(Strict):
    """One model of a pipeline, and what it is told."""

    model: str
    """Who is asked."""
    system: str | None = None
    """System prompt of this step. None: none but the caller's, which only a step without template sees."""
    template: str | None = None
    """The prompt: `{input}` is the caller's last message, `{previous}` the answer of the step before. None: the
    caller's messages as they are for the first step, `{previous}` for the others."""


class PipelineConfig(Strict):
    """Models one after the other, each working on what the one before has written."""

    steps: tuple[PipelineStep, ...] = Field(min_length=1)
    """In order; the last one's answer is the answer."""


VirtualConfig = CascadeConfig | EnsembleConfig | PipelineConfig


def members(config: VirtualConfig) -> tuple[str, ...]:
    """Return the names of all models that a virtual model may ask, each once."""
    match config:
        case CascadeConfig():
            names = [*config.steps, config.check.judge]
        case EnsembleConfig():
            names = [*config.models, config.judge]
        case PipelineConfig():
            names = [step.model for step in config.steps]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def check_recursion(members_of: Mapping[str, Collection[str]]) -> None:
    """Refuse virtual models that would ask themselves, directly or through others.

    Args:
        members_of: for each virtual model the models it asks; any other name is a plain one.

    Raises:
        ConfigError: there is a circle; the message shows it.
    """
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise ConfigError("virtual_model_circle", f"virtual models ask themselves without end: {circle}")
        if name not in done:
            for member in members_of.get(name, ()):
                visit(member, (*path, name))
            done.add(name)

    for name in members_of:
        visit(name, ())
