"""Types of a request's top fields; ranges and everything deeper is for the upstream, which knows its own limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mlaas.providers.base import FieldError

NUMBER: Final = (int, float)
_NAMES: Final = {
    str: "a string",
    bool: "a boolean",
    dict: "an object",
    int: "an integer",
    float: "a number",
    list: "an array",
}


def check_types(fields: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> None:
    """Check the fields that have a type here; null passes.

    Args:
        fields: decoded JSON.
        types: the exact types that each field may have.

    Raises:
        FieldError: names the first field with another type, without its value, which may be a part of a prompt.
    """
    for name, value in fields.items():
        allowed = types.get(name)
        if allowed is not None and value is not None and type(value) not in allowed:
            wanted = "a number" if allowed is NUMBER else " or ".join(_NAMES[each] for each in allowed)
            raise FieldError(name, f"{name!r} must be {wanted}, not {show_type(value)}")


def show_type(value: object) -> str:
    """Return the name of a JSON value's type."""
    return "null" if value is None else _NAMES[type(value)]
