"""Types of a request's top fields, and the least that a number can mean.

Most values and everything deeper are for the upstream, which knows its own limits.
"""

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
_NO_BOUNDS: Final[Mapping[str, int]] = {}


def check_types(
    fields: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], *, least: Mapping[str, int] = _NO_BOUNDS
) -> None:
    """Check the fields that have a type here; null passes.

    Args:
        fields: decoded JSON.
        types: the exact types that each field may have.
        least: the lowest value of the numbers among them that have one with every upstream. They are what money is
            reserved by, so no upstream is asked about a lower one.

    Raises:
        FieldError: names the first field with another type, without its value, which may be a part of a prompt; or with
            a number that is too low.
    """
    for name, value in fields.items():
        allowed = types.get(name)
        if allowed is not None and value is not None and type(value) not in allowed:
            wanted = "a number" if allowed is NUMBER else " or ".join(_NAMES[each] for each in allowed)
            raise FieldError(name, f"{name!r} must be {wanted}, not {show_type(value)}")
        if value is not None and name in least and value < least[name]:
            raise FieldError(name, f"{name!r} must be at least {least[name]}, not {value}")


def show_type(value: object) -> str:
    """Return the name of a JSON value's type."""
    return "null" if value is None else _NAMES[type(value)]
