"""What one request was and how it ended: filled in on its way, then written to the journal, metrics and trace."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from decimal import Decimal

from mlaas.providers.base import Usage
from mlaas.router.choice.decision_log import Logged


def new_id() -> str:
    """Return an id that no other request has, ever: 48 bits of milliseconds since 1970, 80 random ones.

    Later ids sort after earlier ones, as those of RFC 9562 (version 7) do, so the ledger's indexes grow at one end.
    Under random ids each batch of rows dirties pages all over them, and writes most of them anew.
    """
    return f"{time.time_ns() // 1_000_000 << 80 | random.getrandbits(80):032x}"


@dataclass(kw_only=True)
class RequestRecord:
    """One request. It never holds a prompt, an answer or a key.

    Attributes:
        id: ours, unique for ever; the usage ledger's primary key.
        request_id: the caller's or the ingress's id, which all logs agree on.
        at_s: wall clock when it came in, seconds since 1970.
        route: the request's path.
        model: what the caller asked for.
        target: who answered, `provider/model`.
        status: HTTP status; 499 when the caller left before an answer.
        duration_ms: until the last byte of the answer.
        ttft_ms: until the first byte of content went to the caller.
        queue_ms: spent waiting for a place at a local model.
        reason: why this target.
        error: code of the error that the caller got, in the status or inside the stream.
        usage: what the answer used; None when nothing was generated.
        cost_usd: what it cost; None when the target has no price.
        cache: `exact` or `semantic` when the answer came from a cache.
        policy: the alias's routing policy.
        decision: the first decision and what it was made of, to replay it; None where there was no choice.
    """

    id: str
    request_id: str
    at_s: float
    route: str = ""
    operation: str = ""
    key_id: str | None = None
    tenant: str | None = None
    model: str | None = None
    target: str | None = None
    is_stream: bool = False
    status: int = 499
    duration_ms: float = 0.0
    ttft_ms: float | None = None
    queue_ms: float = 0.0
    num_attempts: int = 0
    reason: str | None = None
    error: str | None = None
    usage: Usage | None = None
    cost_usd: Decimal | None = None
    cache: str = ""
    policy: str | None = None
    decision: Logged | None = None
