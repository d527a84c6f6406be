"""The input of a batch, read and checked, and the lines of its output.

Source: OpenAI API reference, batch input and output objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from mlaas.providers.base import Operation

ENDPOINTS: Final = {
    f"/v1/{operation.value}": operation
    for operation in (
        Operation.CHAT,
        Operation.COMPLETION,
        Operation.EMBEDDINGS,
        Operation.RESPONSES,
        Operation.MESSAGES,
    )
}
"""What a batch can be asked at."""
MAX_LINES: Final = 50_000
"""Requests of one batch."""
_MAX_ERRORS = 100
_MAX_ID_CHARS = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLine:
    """One request of a batch."""

    number: int
    """Of the line in the input file, from 1."""
    custom_id: str
    """The caller's own name for it, unique in the batch."""
    body: bytes
    """The request's body, JSON."""


def parse_lines(content: bytes, *, endpoint: str) -> tuple[list[BatchLine], list[dict[str, Any]]]:
    """Read the input of a batch.

    Args:
        content: JSON lines; blank ones are passed over.
        endpoint: where the batch says that all its requests go.

    Returns:
        The requests, and what is wrong with the file: OpenAI's batch errors, each with the line, at most 100.
    """
    lines: list[BatchLine] = []
    errors: list[dict[str, Any]] = []
    first_lines: dict[str, int] = {}
    for number, text in enumerate(content.split(b"\n"), start=1):
        if len(errors) >= _MAX_ERRORS:
            break
        if not text.strip():
            continue
        if len(lines) == MAX_LINES:
            errors.append(_error("too_many_requests", f"a batch holds at most {MAX_LINES:,} requests", number))
            break
        line, error = _parse_line(text, number, endpoint)
        if line is not None and line.custom_id in first_lines:
            error = _error(
                "duplicate_custom_id", f"line {first_lines[line.custom_id]} has the same", number, "custom_id"
            )
        if error is not None:
            errors.append(error)
        elif line is not None:
            first_lines[line.custom_id] = number
            lines.append(line)
    if not lines and not errors:
        errors.append(_error("empty_file", "the input file holds no request", None))
    return lines, errors


def encode_answer(
    line: BatchLine, *, batch_id: str, request_id: str | None = None, status: int = 0, body: bytes = b""
) -> str:
    """Return the line of the output or error file for a request that has been answered."""
    response = {"status_code": status, "request_id": request_id, "body": _one_line(body)}
    return _encode(line, batch_id, response=response, error=None)


def encode_unanswered(line: BatchLine, *, batch_id: str, code: str, message: str) -> str:
    """Return the line of the error file for a request that was never answered."""
    return _encode(line, batch_id, response=None, error={"code": code, "message": message})


def _one_line(body: bytes) -> orjson.Fragment:
    """Return a body as it is, on one line: outside of strings, where JSON has none, line breaks are blanks."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return orjson.Fragment(orjson.dumps(body.decode("utf-8", "replace")))
    return orjson.Fragment(body.replace(b"\n", b" ").replace(b"\r", b" "))


def _encode(line: BatchLine, batch_id: str, *, response: Mapping[str, Any] | None, error: Any) -> str:
    head = {"id": f"{batch_id.replace('batch_', 'batch_req_', 1)}_{line.number}", "custom_id": line.custom_id}
    return orjson.dumps({**head, "response": response, "error": error}).decode()


def _parse_line(text: bytes, number: int, endpoint: str) -> tuple[BatchLine | None, dict[str, Any] | None]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return None, _error("invalid_json_line", f"this line is not JSON: {error}", number)
    if not isinstance(value, dict):
        return None, _error("invalid_json_line", "this line is not a JSON object", number)
    for code, param, message in _faults(value, endpoint):
        return None, _error(code, message, number, param)
    return BatchLine(number=number, custom_id=value["custom_id"], body=orjson.dumps(value["body"])), None


def _faults(value: Mapping[str, Any], endpoint: str) -> Iterator[tuple[str, str, str]]:
    """Yield code, field and message of what is wrong with a line, the first of which is told."""
    custom_id, body = value.get("custom_id"), value.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _MAX_ID_CHARS:
        yield "invalid_custom_id", "custom_id", f"'custom_id' must be a string of 1 to {_MAX_ID_CHARS} characters"
    if value.get("method") != "POST":
        yield "invalid_method", "method", "'method' must be 'POST'"
    if value.get("url") != endpoint:
        yield "invalid_url", "url", f"'url' must be {endpoint!r}, the batch's endpoint"
    if not isinstance(body, dict):
        yield "invalid_body", "body", "'body' must be an object"
    elif not isinstance(body.get("model"), str) or not body["model"]:
        yield "missing_required_parameter", "body.model", "'body.model' must name a model"
    elif body.get("stream"):
        yield "unsupported_parameter", "body.stream", "a batch cannot stream; leave out 'body.stream'"
    if unknown := sorted(value.keys() - {"custom_id", "method", "url", "body"}):
        yield "unknown_parameter", unknown[0], f"{unknown[0]!r} is not a field of a batch's request"


def _error(code: str, message: str, number: int | None, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": number, "param": param}
