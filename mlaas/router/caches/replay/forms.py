"""The two forms of an answer, for each operation that has both."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, Operation, Usage
from mlaas.providers.sse import split_events
from mlaas.router.caches.replay.chat import join_chunks, split_completion
from mlaas.router.caches.replay.messages import join_events, split_message
from mlaas.router.caches.replay.usage import encode_chat_usage

STREAMED: Final = frozenset({Operation.CHAT, Operation.COMPLETION, Operation.MESSAGES})
"""Operations whose streams can be put together and taken apart."""


def whole_from_stream(operation: Operation, events: bytes, *, usage: Usage | None) -> bytes | None:
    """Return a finished stream as the answer that a caller without streaming gets.

    Args:
        operation: one of `STREAMED`.
        events: the whole stream, as it went to the caller.
        usage: what was used; put in where the stream itself did not say it.

    Returns:
        The answer's body, or None when the stream was broken off, holds an error, or is not what it should be.
    """
    try:
        payloads = split_events(events)
        if operation is Operation.MESSAGES:
            whole = join_events([orjson.loads(payload) for payload in payloads])
        else:
            whole = _join_completion(payloads, is_chat=operation is Operation.CHAT)
            if whole is not None and usage is not None:
                whole.setdefault("usage", encode_chat_usage(usage))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    return orjson.dumps(whole) if whole is not None else None


def stream_from_whole(call: Call, body: bytes, *, cost_usd: Decimal | None) -> bytes:
    """Return an answer as a complete, well-formed stream for its caller.

    Args:
        call: the request that is answered; its operation is one of `STREAMED`.
        body: the whole answer in the call's API.
        cost_usd: what the caller is billed, told in the usage; zero for an answer from the cache.
    """
    whole: dict[str, Any] = orjson.loads(body)
    if cost_usd is not None and whole.get("usage"):
        whole["usage"] = {**whole["usage"], "cost_usd": float(cost_usd)}
    if call.operation is Operation.MESSAGES:
        return split_message(whole)
    has_usage = bool((call.fields.get("stream_options") or {}).get("include_usage"))
    return split_completion(whole, is_chat=call.operation is Operation.CHAT, has_usage=has_usage)


def _join_completion(payloads: list[bytes], *, is_chat: bool) -> dict[str, Any] | None:
    if not payloads or payloads[-1] != b"[DONE]":
        return None
    chunks = [orjson.loads(payload) for payload in payloads[:-1]]
    if any("error" in chunk for chunk in chunks):
        return None
    return join_chunks(chunks, is_chat=is_chat)
