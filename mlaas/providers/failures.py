"""What an upstream's error answer means, whatever its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from mlaas.providers.base import Failure, FailureKind
from mlaas.providers.retry_after import parse_retry_after

_KINDS = {
    401: FailureKind.DENIED,
    402: FailureKind.QUOTA,
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
_OUT_OF_MONEY = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
    }
)
# Said with a status and a type that mean something else: Anthropic's 400, xAI's 403 and 429. Only how a message begins
# counts, since the rest of it may quote the caller.
_OUT_OF_MONEY_MESSAGES = ("Your credit balance is too low", "Your team has used all available credits")
# What Gemini and xAI say with a status of 400 about the gateway's key, where others say 401.
_BAD_KEY_MESSAGES = ("API key not valid", "Incorrect API key provided")
_DAILY_QUOTA_S = 3600.0
"""Gemini's daily quotas are back at midnight in California, which the answer does not say: look again each hour."""
_MAX_MESSAGE_CHARS = 2000


def parse_failure(name: str, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that an error answer describes.

    Read are OpenAI's object, the same inside a list (Gemini's compatible endpoint), `{"error": "text"}` (xAI),
    `{"detail": ...}` (FastAPI) and plain text. An account without money is `QUOTA`, whatever the status.

    Args:
        name: the provider, for the message.
        status: HTTP status, 300 or more.
        headers: answer headers, any case.
        body: answer body.

    Source: OpenAI API reference, error codes; provider documents of Gemini, xAI and Anthropic; google.rpc
        `error_details.proto`; `x-should-retry` of both SDKs.
    """
    error = _parse_error(body)
    lowered = {key.lower(): value for key, value in headers.items()}
    message = str(error.get("message") or f"HTTP {status} without a message")[:_MAX_MESSAGE_CHARS]
    if status == 400 and message.startswith(_BAD_KEY_MESSAGES):
        status = 401
    kind = _kind_of(status, error, message, lowered.get("x-should-retry"))
    param = error.get("param")
    return Failure(
        kind=kind,
        status=402 if kind is FailureKind.QUOTA else _CALLER_STATUS.get(status, status if status >= 400 else 502),
        code=next(iter(_codes_of(error)), f"upstream_{status}"),
        message=_prefix(name, status, kind) + message,
        type=str(error.get("type") or _type_of(status)),
        param=param if isinstance(param, str) else None,
        retry_after_s=_DAILY_QUOTA_S if _is_daily(error) else parse_retry_after(lowered) or _retry_delay_s(error),
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
    if error == {"detail": "Not Found"}:
        # What FastAPI, and so vLLM, says of a path that it has not: there is one for each kind of model.
        return {
            "message": "there is no such API for this model: one for embeddings has no chats, and others only these"
        }
    if "message" not in error and "detail" in error:
        return {**error, "message": orjson.dumps(error["detail"]).decode()}
    return error


def _codes_of(error: Mapping[str, Any]) -> list[str]:
    codes = [error.get(field) for field in ("code", "status", "type")]
    return [code for code in codes if code and isinstance(code, str)]


def _kind_of(status: int, error: Mapping[str, Any], message: str, should_retry: str | None) -> FailureKind:
    if _is_out_of_money(error, message):
        return FailureKind.QUOTA
    kind = _KINDS.get(status) or (FailureKind.REJECTED if 400 <= status < 500 else FailureKind.FAILED)
    if should_retry == "true" and kind is FailureKind.REJECTED:
        return FailureKind.OVERLOADED
    if should_retry == "false" and kind in (FailureKind.OVERLOADED, FailureKind.FAILED, FailureKind.TIMEOUT):
        return FailureKind.QUOTA if status == 429 else FailureKind.DENIED
    return kind


def _is_out_of_money(error: Mapping[str, Any], message: str) -> bool:
    codes = _codes_of(error)
    details = error.get("details")
    if isinstance(details, dict):
        codes += [*_codes_of(details), str(details.get("error_code"))]
    return (
        not _OUT_OF_MONEY.isdisjoint(codes)
        or message.startswith(_OUT_OF_MONEY_MESSAGES)
        or _is_daily(error)
        or any(str(each.get("quotaValue")) == "0" for each in _violations(error))
        or (error.get("status") == "RESOURCE_EXHAUSTED" and message.endswith("limit: 0"))
    )


def _is_daily(error: Mapping[str, Any]) -> bool:
    return any("PerDay" in str(each.get("quotaId")) for each in _violations(error))


def _details(error: Mapping[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []


def _violations(error: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return Gemini's broken quotas, each `{"quotaId", "quotaValue", ...}`."""
    groups = [detail.get("violations") for detail in _details(error)]
    return [each for group in groups if isinstance(group, list) for each in group if isinstance(each, dict)]


def _retry_delay_s(error: Mapping[str, Any]) -> float | None:
    """Return the wait in seconds of Gemini's `RetryInfo`, a duration such as `34.07s`."""
    delays = (detail.get("retryDelay") for detail in _details(error))
    text = next((delay for delay in delays if isinstance(delay, str)), "")
    return parse_retry_after({"retry-after": text.removesuffix("s")})


def _type_of(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "upstream_error")


def _prefix(name: str, status: int, kind: FailureKind) -> str:
    if kind is FailureKind.QUOTA:
        return f"the gateway's own account at {name} is out of money or quota: "
    return f"{name} refused the gateway's own API key: " if status == 401 else f"{name}: "
