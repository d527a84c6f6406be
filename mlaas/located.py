"""Reads a YAML or JSON file into a typed value; anything wrong is refused with its line and field."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from mlaas.errors import ConfigError

SectionT = TypeVar("SectionT", bound=BaseModel)
Location = tuple[int | str, ...]
Place = Callable[[Location], str]
"""Returns where in which file a location is."""
_SECRET: Final = re.compile("key|env|token|secret|password", re.IGNORECASE)
"""Places whose values are not shown."""
_WANTED: Final = {
    "tuple_type": "must be a list, such as [a, b]",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a section with names of its own below it",
    "model_type": "must be a section with fields of its own below it",
    "missing": "is missing",
}
"""What is wanted, by pydantic's type of the error, where pydantic says it in words of Python."""


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
    value, place = read_document(text, source=str(path), code=code)
    return validated(value, section, code=code, place=place)


def read_document(text: str, *, source: str, code: str) -> tuple[Any, Place]:
    """Return the one document of a YAML text, None of an empty one, and where its parts are.

    Raises:
        ConfigError: as in `read_documents`; or there are several.
    """
    documents = read_documents(text, source=source, code=code)
    if len(documents) > 1:
        raise ConfigError(code, f"{source}: holds {len(documents)} documents; keep one, without `---`")
    return documents[0] if documents else (None, partial(_place, source, None))


def read_documents(text: str, *, source: str, code: str) -> list[tuple[Any, Place]]:
    """Return the documents of a YAML text that are not empty, each with where its parts are.

    Args:
        text: documents with `---` between them.
        source: the file's name, for messages.
        code: of the error that tells what is wrong.

    Raises:
        ConfigError: it is not YAML, or a mapping has a key twice, of which the last would win unseen.
    """
    try:
        # Not libyaml's loader: deep nesting overruns its stack, which ends the process.
        trees = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        values = list(yaml.safe_load_all(text))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(code, f"{source}:{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # Characters that YAML has not, dates such as 2026-13-01, and nesting without end.
        raise ConfigError(code, f"{source}: not valid YAML: {error}") from error
    for tree in trees:
        _refuse_key_twice(tree, source=source, code=code)
    return [
        (value, partial(_place, source, tree)) for tree, value in zip(trees, values, strict=True) if value is not None
    ]


def validated(value: Any, section: type[SectionT], *, code: str, place: Place) -> SectionT:
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
        raise ConfigError(code, f"{place(first['loc'])}: {field}: {reason_of(first, section)}") from error


def reason_of(error: Mapping[str, Any], section: type[BaseModel]) -> str:
    """Return what is wrong and the way out.

    Args:
        error: one of `ValidationError.errors()`.
        section: what was to be read.
    """
    if error["type"] == "extra_forbidden":
        field = str(error["loc"][-1])
        fields = _fields_at(section, error["loc"][:-1])
        return f"unknown field {field!r}{nearest(field, fields)}; known: {', '.join(fields)}"
    if error["type"] == "too_short":
        return f"needs at least {error['ctx']['min_length']}, and has {error['ctx']['actual_length']}"
    if wanted := _WANTED.get(error["type"]):
        return wanted
    reason = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    is_shown = isinstance(given, str | int | float) and not _SECRET.search(".".join(map(str, error["loc"])))
    return f"{reason}, not {repr(given)[:60]}" if is_shown and reason.startswith("Input should") else reason


def nearest(name: str, names: Collection[str]) -> str:
    """Return a question for the name that was probably meant; empty when none is close."""
    found = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {found[0]!r}?" if found else ""


def line_of(node: yaml.Node | None, location: Location) -> int:
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


def _place(source: str, tree: yaml.Node | None, location: Location) -> str:
    return f"{source}:{line_of(tree, location)}"


def _refuse_key_twice(tree: yaml.Node | None, *, source: str, code: str) -> None:
    nodes = [tree]
    seen = set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in keys:
                    message = f"{source}:{key.start_mark.line + 1}: {key.value!r} is here twice; keep one of the two"
                    raise ConfigError(code, message)
                keys.add(key.value if isinstance(key, yaml.ScalarNode) else None)
                nodes.append(value)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _fields_at(section: type[BaseModel], location: Location) -> tuple[str, ...]:
    """Return the fields that are known at a place; none where names are free."""
    found: Any = section
    for step in location:
        found = _step_into(_unwrap(found), step)
    found = _unwrap(found)
    return tuple(field.alias or name for name, field in found.model_fields.items()) if _is_section(found) else ()


def _step_into(annotation: Any, step: int | str) -> Any:
    if _is_section(annotation):
        field = annotation.model_fields.get(str(step))
        return field.annotation if field is not None else None
    containers = {dict: 1, tuple: 0}
    index = containers.get(get_origin(annotation))
    return None if index is None else get_args(annotation)[index]


def _unwrap(annotation: Any) -> Any:
    """Return what an annotation is without `Annotated` and `| None`."""
    if get_origin(annotation) is Annotated or (get_origin(annotation) is UnionType):
        return _unwrap(get_args(annotation)[0])
    return annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
