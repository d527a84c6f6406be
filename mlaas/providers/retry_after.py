"""How long an answer's headers ask to wait, in all the forms that providers use."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "ns": 1e-9}
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|\u00b5s|ns|m|s)")
_RESET = re.compile(r"((?:anthropic|x)-ratelimit-)(?:reset-(.+)|(.+)-reset)")


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait in seconds that an answer asks for, None when it asks for none.

    A date is read against the answer's own `Date`. Without any form of `retry-after`, the resets of rate limits count:
    the last one of those that are used up, else the first one.

    Args:
        headers: names in lower case.

    Source: RFC 9110, 10.2.3 (seconds or a date); `retry-after-ms` of OpenAI and Anthropic; OpenAI's
        `x-ratelimit-reset-*` (a Go duration); Anthropic's `anthropic-ratelimit-*-reset` (RFC 3339).
    """
    milliseconds = _parse_seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    wait_s = _parse_seconds(text)
    if wait_s is None and text is not None:
        wait_s = _parse_date(text, headers)
    return wait_s if wait_s is not None else _parse_resets(headers)


def _parse_seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def _parse_date(text: str, headers: Mapping[str, str]) -> float | None:
    """Return the seconds from the answer's `Date` to a date as in HTTP or in RFC 3339."""
    try:
        at = parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(text)
        return max(0.0, (at - parsedate_to_datetime(headers["date"])).total_seconds())
    except (ValueError, KeyError, TypeError):
        return None


def _parse_go_duration(text: str) -> float | None:
    """Return the seconds of a duration such as `6m0s`, `1.5s` or `20ms`."""
    parts = _GO_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def _parse_resets(headers: Mapping[str, str]) -> float | None:
    waits, exhausted = [], []
    for name, text in headers.items():
        found = _RESET.fullmatch(name)
        if found is None:
            continue
        wait_s = _parse_go_duration(text)
        if wait_s is None:
            wait_s = _parse_date(text, headers)
        if wait_s is not None:
            waits.append(wait_s)
            prefix, mine, theirs = found.groups()
            left = f"{prefix}remaining-{mine}" if mine else f"{prefix}{theirs}-remaining"
            if headers.get(left) == "0":
                exhausted.append(wait_s)
    return max(exhausted) if exhausted else min(waits, default=None)
