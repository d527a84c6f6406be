"""Bodies and parameters of requests: JSON or YAML, read once, and unknown names refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import orjson

from mlaas.errors import InvalidRequest
from mlaas.located import nearest
from mlaas.providers.base import FieldError
from mlaas.scheduler.requests.document import parse_spec, parse_specs
from mlaas.scheduler.requests.queues import QueuesDocument
from mlaas.scheduler.requests.queues_file import parse_queues, parse_queues_text
from mlaas.scheduler.requests.spec import WorkloadSpec

MAX_DOCUMENT_BYTES: Final = 4_000_000
"""A list of workloads or queues is not longer."""
MAX_YAML_BYTES: Final = 64 * 1024
"""YAML is a hundred times slower to read than JSON, and the gateway has other callers."""
MAX_WORKLOADS: Final = 1000
"""Of one request; more belong into arrays."""
_ORIGIN: Final = "body"


def parse_workloads(body: bytes) -> tuple[WorkloadSpec, ...]:
    """Return the workloads of a body: one, or several as a list or, in YAML, with `---` between them.

    Raises:
        ConfigError: a field is unknown or has a bad value; the message says where, and the way out.
        InvalidRequest: the body is neither JSON nor YAML, or holds too many workloads.
    """
    with suppress(orjson.JSONDecodeError):
        document = orjson.loads(body)
        entries = document if isinstance(document, list) else [document]
        _check_number(len(entries))
        return tuple(parse_spec(each, origin=f"workload {number}") for number, each in enumerate(entries, start=1))
    specs = parse_specs(_yaml_text(body), origin=_ORIGIN)
    _check_number(len(specs))
    return specs


def parse_queues_body(body: bytes) -> QueuesDocument:
    """Return the queues of a body.

    Raises:
        ConfigError: it says something wrong; the message names field and way out.
        InvalidRequest: the body is neither JSON nor YAML.
    """
    with suppress(orjson.JSONDecodeError):
        return parse_queues(orjson.loads(body), origin=_ORIGIN)
    return parse_queues_text(_yaml_text(body), origin=_ORIGIN)


def _yaml_text(body: bytes) -> str:
    if len(body) > MAX_YAML_BYTES:
        message = f"the body is not JSON, and over {MAX_YAML_BYTES:,} bytes, the most that is read as YAML"
        raise InvalidRequest("invalid_document", message)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("invalid_document", f"the body is neither JSON nor YAML: {error}") from error


def check_parameters(query: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse parameters that a route does not have.

    Raises:
        FieldError: there is one.
    """
    for name in query:
        if name not in known:
            there_are = f"there are: {', '.join(known)}" if known else "there are none"
            raise FieldError(name[:100], f"{name[:100]!r} is not a parameter here{nearest(name, known)}; {there_are}")


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
    return parse_choice(query, name, choices=("false", "true")) == "true"


def parse_choice(query: Mapping[str, str], name: str, *, choices: Sequence[str]) -> str:
    """Return a parameter that is one of a few words; left out, the first.

    Raises:
        FieldError: it is something else.
    """
    text = query.get(name, choices[0])
    if text not in choices:
        raise FieldError(name, f"{name!r} must be {' or '.join(choices)}, not {text[:100]!r}")
    return text


def _check_number(num_workloads: int) -> None:
    if not 1 <= num_workloads <= MAX_WORKLOADS:
        message = (
            f"{num_workloads:,} workloads in one request; it is 1 to {MAX_WORKLOADS:,}, and `array` makes many of one"
        )
        raise InvalidRequest("bad_number_of_workloads", message)
