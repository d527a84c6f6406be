"""Bodies and parameters of requests: JSON or YAML, read once, and unknown names refused."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson
import yaml

from mlaas.errors import InvalidRequest
from mlaas.providers.base import FieldError

MAX_DOCUMENT_BYTES: Final = 4_000_000
"""A list of workloads or queues is not longer."""
MAX_YAML_BYTES: Final = 64 * 1024
"""YAML is a hundred times slower to read than JSON, and the gateway has other callers."""
MAX_SPECS: Final = 1000
"""Of one request; more belong into arrays."""


def parse_document(body: bytes) -> object:
    """Return what a body says.

    Raises:
        InvalidRequest: it is neither JSON nor YAML, or YAML over `MAX_YAML_BYTES`.
    """
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(body)
    if len(body) > MAX_YAML_BYTES:
        message = f"the body is not JSON, and over {MAX_YAML_BYTES:,} bytes, the most that is read as YAML"
        raise InvalidRequest("invalid_document", message)
    try:
        # Not libyaml's loader: deep nesting overruns its stack, which ends the process.
        return yaml.safe_load(body)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest("invalid_document", f"the body is neither JSON nor YAML: {error}") from error


def parse_spec_list(body: bytes) -> list[dict[str, Any]]:
    """Return the workloads of a body: one object, or a list of them.

    Raises:
        InvalidRequest: it is something else, or too many.
    """
    document = parse_document(body)
    specs = document if isinstance(document, list) else [document]
    if not specs or not all(isinstance(each, dict) for each in specs):
        raise InvalidRequest("invalid_document", "the body must be a workload, an object of fields, or a list of them")
    if len(specs) > MAX_SPECS:
        message = f"{len(specs):,} workloads in one request, at most {MAX_SPECS:,}; `array` makes many of one kind"
        raise InvalidRequest("too_many_workloads", message)
    return specs


def check_parameters(query: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse parameters that a route does not have.

    Raises:
        FieldError: there is one.
    """
    for name in query:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"
            raise FieldError(name[:100], f"{name[:100]!r} is not a parameter here; {hint}")


def parse_number(query: Mapping[str, str], name: str, *, default: int, most: int, least: int = 0) -> int:
    """Return a parameter that is a whole number.

    Raises:
        FieldError: it is none, or out of range.
    """
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise FieldError(name, f"{name!r} must be a whole number from {least:,} to {most:,}, not {text[:100]!r}")
    return int(text)


def parse_switch(query: Mapping[str, str], name: str) -> bool:
    """Return a parameter that is `true` or `false`.

    Raises:
        FieldError: it is something else.
    """
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise FieldError(name, f"{name!r} must be true or false, not {text[:100]!r}")
    return text == "true"
