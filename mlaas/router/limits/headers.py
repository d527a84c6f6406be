"""Rate limits as response headers, in OpenAI's forms.

Source: OpenAI, "Rate limits", section "Rate limits in headers": `x-ratelimit-limit-requests: 60`,
`x-ratelimit-remaining-tokens: 149984`, `x-ratelimit-reset-tokens: 6m0s`.
"""

from __future__ import annotations

from mlaas.router.limits.accounts import Account
from mlaas.router.limits.shares import Share

_REQUESTS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
_TOKENS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")


def encode_headers(account: Account, *, now_s: float) -> list[tuple[bytes, bytes]]:
    """Return the headers of a key's limits on requests and tokens.

    What remains is counted over all replicas as of the last exchange with the ledger; the reset is this replica's.
    """
    headers: list[tuple[bytes, bytes]] = []
    if account.limits.rpm is not None:
        headers += _encode(_REQUESTS, account.requests, now_s)
    if account.limits.tpm is not None:
        headers += _encode(_TOKENS, account.tokens, now_s)
    return headers


def encode_duration(seconds: float) -> bytes:
    """Return a duration as Go writes it: `0s`, `59ms`, `1.5s`, `6m0s`."""
    millis = round(seconds * 1000)
    if 0 < millis < 1000:
        return b"%dms" % millis
    minutes, rest = divmod(millis, 60_000)
    return b"%dm%gs" % (minutes, rest / 1000) if minutes else b"%gs" % (rest / 1000)


def _encode(names: tuple[bytes, bytes, bytes], share: Share, now_s: float) -> list[tuple[bytes, bytes]]:
    limit_name, remaining_name, reset_name = names
    remaining = max(0, min(share.limit, share.expected(now_s) - share.unsettled))
    return [
        (limit_name, b"%d" % share.limit),
        (remaining_name, b"%d" % remaining),
        (reset_name, encode_duration(share.empties_in_s(now_s=now_s))),
    ]
