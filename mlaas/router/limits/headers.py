"""Rate limits as response headers, in OpenAI's forms.

Source: OpenAI, "Rate limits", section "Rate limits in headers": `x-ratelimit-limit-requests: 60`,
`x-ratelimit-remaining-tokens: 149984`, `x-ratelimit-reset-tokens: 6m0s`.
"""

from __future__ import annotations

from mlaas.router.limits.accounts import Account
from mlaas.router.limits.shares import Share


def encode_headers(account: Account, *, now_s: float) -> list[tuple[bytes, bytes]]:
    """Return the headers of a key's limits on requests and tokens.

    What remains is counted over all replicas as of the last exchange with the ledger; the reset is this replica's.
    """
    shares: list[tuple[bytes, Share]] = []
    if account.limits.rpm is not None:
        shares.append((b"requests", account.requests))
    if account.limits.tpm is not None:
        shares.append((b"tokens", account.tokens))
    headers: list[tuple[bytes, bytes]] = []
    for name, share in shares:
        remaining = max(0, min(share.limit, share.expected(now_s) - share.unsettled))
        headers += [
            (b"x-ratelimit-limit-" + name, b"%d" % share.limit),
            (b"x-ratelimit-remaining-" + name, b"%d" % remaining),
            (b"x-ratelimit-reset-" + name, encode_duration(share.empties_in_s(now_s=now_s))),
        ]
    return headers


def encode_duration(seconds: float) -> bytes:
    """Return a duration as Go writes it: `0s`, `59ms`, `1.5s`, `6m0s`."""
    millis = round(seconds * 1000)
    if 0 < millis < 1000:
        return b"%dms" % millis
    minutes, rest = divmod(millis, 60_000)
    text = f"{rest / 1000:g}s"
    return f"{minutes}m{text}".encode() if minutes else text.encode()
