"""Reads a YAML or JSON file into a typed value; anything wrong is refused with its line and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mlaas.errors import ConfigError

SectionT = TypeVar("SectionT", bound=BaseModel)


def read_located(path: Path, section: type[SectionT], *, code: str) -> SectionT:
    """Return a file's content as a typed value.

    Args:
        path: YAML, of which JSON is a part.
        section: what the file has to hold.
        code: of the error that tells what is wrong in it.

    Raises:
        ConfigError: the file is missing, is not YAML, or says something wrong; the message gives line and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(code, f"cannot read {path}: {error}") from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(code, f"{path}:{line}: not valid YAML: {error.problem}") from error
    return validated(value, section, code=code, place=lambda location: f"{path}:{line_of(tree, location)}")


def validated(value: Any, section: type[SectionT], *, code: str, place: Any) -> SectionT:
    """Return a decoded value as a typed one.

    Args:
        value: what was read.
        section: what it has to be.
        code: of the error that tells what is wrong in it.
        place: returns where in which file a location is.

    Raises:
        ConfigError: it is not; the message gives place and field of the first fault.
    """
    try:
        return section.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        why = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(code, f"{place(first['loc'])}: {field}: {why}") from error


def line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
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
