"""What an upstream's error answer means, whatever its shape."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from mlaas.providers.base import Failure, FailureKind

_KINDS = {
    401: FailureKind.DENIED,
    402: FailureKind.DENIED,
    403: FailureKind.DENIED,
    404: FailureKind.DENIED,
    408: FailureKind.TIMEOUT,
    429: FailureKind.OVERLOADED,
    503: FailureKind.OVERLOADED,
    504: FailureKind.TIMEOUT,
    529: FailureKind.OVERLOADED,
}
# 401 would tell callers that their own key is wrong, and no client of OpenAI's knows 529.
_CALLER_STATUS = {401: 502, 529: 503}
_TYPES = {402: "insufficient_quota", 403: "permission_error", 404: "invalid_request_error", 429: "rate_limit_error"}
_MAX_MESSAGE_CHARS = 2000


def parse_failure(name: str, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that an error answer describes.

    Read are OpenAI's object, the same inside a list (Gemini's compatible endpoint), `{"error": "text"}` (xAI),
    `{"detail": ...}` (FastAPI) and plain text.

    Args:
        name: the provider, for the message.
        status: HTTP status, 300 or more.
        headers: answer headers, any case.
        body: answer body.

    Source: OpenAI API reference, error codes; provider documents of Gemini, xAI and Anthropic.
    """
    error = _parse_error(body)
    message = str(error.get("message") or f"HTTP {status} without a message")[:_MAX_MESSAGE_CHARS]
    codes = (error.get(field) for field in ("code", "status", "type"))
    param = error.get("param")
    return Failure(
        kind=_kind_of(status),
        status=_CALLER_STATUS.get(status, status if status >= 400 else 502),
        code=next((code for code in codes if code and isinstance(code, str)), f"upstream_{status}"),
        message=_prefix(name, status) + message,
        type=str(error.get("type") or _type_of(status)),
        param=param if isinstance(param, str) else None,
        retry_after_s=parse_retry_after(headers),
    )


def unreadable(name: str, what: str) -> Failure:
    """Return the failure of an upstream whose answer makes no sense."""
    return Failure(
        kind=FailureKind.FAILED, status=502, code="upstream_unreadable", message=f"{name} sent {what}; try again"
    )


def cut_short(name: str) -> Failure:
    """Return the failure of an upstream that closed the connection before its answer was complete."""
    return Failure(
        kind=FailureKind.CLOSED,
        status=502,
        code="upstream_closed",
        message=f"{name} closed the connection before its answer was complete",
    )


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait in seconds that an answer asks for, None when it asks for none.

    Source: RFC 9110, 10.2.3 (seconds or a date; a date is read against the answer's own `Date`); `retry-after-ms` of
    OpenAI and Anthropic.
    """
    lowered = {key.lower(): value for key, value in headers.items()}
    try:
        if "retry-after-ms" in lowered:
            return max(0.0, float(lowered["retry-after-ms"]) / 1000)
        text = lowered.get("retry-after")
        if text is None:
            return None
        if text.replace(".", "", 1).isdigit():
            return float(text)
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(lowered["date"])
        return max(0.0, wait.total_seconds())
    except (ValueError, KeyError, TypeError):
        return None


def _parse_error(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"message": body.decode("utf-8", "replace").strip()}
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return {}
    error = value.get("error", value)
    if isinstance(error, str):
        return {"message": error, "code": value.get("code")}
    if not isinstance(error, dict):
        return {}
    if "message" not in error and "detail" in error:
        return {**error, "message": orjson.dumps(error["detail"]).decode()}
    return error


def _kind_of(status: int) -> FailureKind:
    known = _KINDS.get(status)
    if known is not None:
        return known
    return FailureKind.REJECTED if 400 <= status < 500 else FailureKind.FAILED


def _type_of(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "upstream_error")


def _prefix(name: str, status: int) -> str:
    return f"{name} refused the gateway's own API key: " if status == 401 else f"{name}: "
