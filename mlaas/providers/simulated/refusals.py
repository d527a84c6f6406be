"""Refusals in each vendor's own shape.

Source: OpenAI and Anthropic API references, errors; google.rpc `error_details.proto`; docs.x.ai; vLLM, `ErrorResponse`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final

from mlaas.providers.simulated.directive import Options


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A refused request, before a vendor's shape is put on it.

    Attributes:
        status: HTTP status.
        message: for the caller.
        param: the field that is wrong, if it is one.
        is_quota: whether the account is out of money.
        after_s: the wait that a body asks for, where the form is `retry-info`.
    """

    status: int
    message: str
    param: str | None = None
    is_quota: bool = False
    after_s: float | None = None

    @property
    def code(self) -> str:
        """Stable identifier that the conformance suite looks for."""
        return f"code_{self.status}"


_QUOTA_STATUS: Final = {"anthropic": 400, "gemini": 429, "xai": 403, "perplexity": 402}
_QUOTA_MESSAGES: Final = {
    "anthropic": "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.",
    "gemini": "You exceeded your current quota. * Quota exceeded for metric: requests, limit: 0",
    "xai": "Your team has used all available credits or reached its monthly spending limit.",
}


def refuse_quota(vendor: str) -> Refusal:
    """Return the refusal of an account that is out of money."""
    message = _QUOTA_MESSAGES.get(
        vendor, "You exceeded your current quota, please check your plan and billing details."
    )
    return Refusal(status=_QUOTA_STATUS.get(vendor, 429), message=message, is_quota=True)


def encode_refusal(vendor: str, refusal: Refusal) -> Any:
    """Return the body of an error answer, as JSON values."""
    return _SHAPES.get(vendor, _openai)(refusal)


def wait_headers(options: Options, *, now: datetime) -> dict[str, str]:
    """Return the headers that ask for a wait of `options.after` seconds in the form `options.form`."""
    at = now + timedelta(seconds=options.after)
    forms: dict[str, dict[str, str]] = {
        "seconds": {"retry-after": f"{options.after:.0f}"},
        "float": {"retry-after": f"{options.after}"},
        "date": {"retry-after": format_datetime(at, usegmt=True)},
        "ms": {"retry-after-ms": f"{options.after * 1000:.0f}"},
        "go": {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": f"0m{options.after}s"},
        "rfc3339": {
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        },
    }
    return {"date": format_datetime(now, usegmt=True), **forms.get(options.form, {})}


def utc_now() -> datetime:
    """Return the time in whole seconds, as a `Date` header has it."""
    return datetime.now(UTC).replace(microsecond=0)


def _openai(refusal: Refusal) -> Any:
    code = "insufficient_quota" if refusal.is_quota else refusal.code
    kind = (
        "insufficient_quota"
        if refusal.is_quota
        else "invalid_request_error"
        if refusal.status < 429
        else "server_error"
    )
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}}


def _anthropic(refusal: Refusal) -> Any:
    kind = "invalid_request_error" if refusal.is_quota else refusal.code
    return {"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": "req_simulated"}


def _gemini(refusal: Refusal) -> Any:
    error: dict[str, Any] = {"code": refusal.status, "message": refusal.message, "status": refusal.code}
    if refusal.is_quota:
        violation = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "0"}
        kind = "type.googleapis.com/google.rpc.QuotaFailure"
        error |= {"status": "RESOURCE_EXHAUSTED", "details": [{"@type": kind, "violations": [violation]}]}
    elif refusal.after_s is not None:
        delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{refusal.after_s}s"}
        error["details"] = [delay]
    return [{"error": error}]


def _xai(refusal: Refusal) -> Any:
    return {
        "code": "personal-team-blocked:spending-limit" if refusal.is_quota else refusal.code,
        "error": refusal.message,
    }


_SHAPES: Final[dict[str, Callable[[Refusal], Any]]] = {"anthropic": _anthropic, "gemini": _gemini, "xai": _xai}
