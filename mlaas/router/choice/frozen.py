"""Frozen values as JSON and back, exactly: what a decision was made of, as one line of a log.

orjson writes dataclasses and enumerations by itself; reading follows the type hints of the class.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import orjson

Decode = Callable[[Any], Any]
T = TypeVar("T")


def encode(value: Any) -> bytes:
    """Return a frozen dataclass as compact JSON."""
    return orjson.dumps(value)


def decode(cls: type[T], text: bytes | str) -> T:
    """Return the value that `encode` wrote. Fields that are not there have their defaults.

    Args:
        cls: the dataclass.
        text: JSON.

    Raises:
        ValueError: it is not the JSON of such a value; the message names the field.
    """
    return from_tree(cls, orjson.loads(text))


def from_tree(cls: type[T], tree: Any) -> T:
    """Return the value of a decoded JSON tree.

    Raises:
        ValueError: as in `decode`.
    """
    annotation: Any = cls
    value: T = _decoder(annotation)(tree)
    return value


@cache
def _decoder(annotation: Hashable) -> Decode:
    """Return the function that reads a value of a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _optional(_decoder(next(each for each in arguments if each is not NoneType)))
    if origin is tuple:
        each = _decoder(arguments[0])
        return lambda tree: tuple(each(item) for item in tree)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return lambda tree: dict(tree)
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _dataclass(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return annotation
    if annotation is float:
        return float
    return lambda tree: tree


def _optional(read: Decode) -> Decode:
    return lambda tree: None if tree is None else read(tree)


def _dataclass(cls: type[Any]) -> Decode:
    hints = get_type_hints(cls)
    names = {each.name for each in fields(cls)}

    def read(tree: Any) -> Any:
        if not isinstance(tree, dict) or not tree.keys() <= names:
            unknown = ", ".join(sorted(tree.keys() - names)) if isinstance(tree, dict) else repr(tree)
            raise ValueError(f"{cls.__name__} has no {unknown}")
        values: dict[str, Any] = {}
        for name, item in tree.items():
            try:
                values[name] = _decoder(hints[name])(item)
            except (TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{cls.__name__}.{name} cannot be {item!r}") from error
        return cls(**values)

    return read
