"""Chat completions and legacy completions: chunks put together, and taken apart again.

Source: OpenAI API reference, chat completions and completions, streamed and not; types of its Python SDK.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from mlaas.providers.sse import DONE, encode_event

_HEAD = ("id", "created", "model", "system_fingerprint", "service_tier")


def join_chunks(chunks: Sequence[dict[str, Any]], *, is_chat: bool) -> dict[str, Any] | None:
    """Return the completion that chunks add up to; None when one of its choices has not ended."""
    whole: dict[str, Any] = {"object": "chat.completion" if is_chat else "text_completion"}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        whole |= {name: chunk[name] for name in _HEAD if chunk.get(name) is not None}
        if chunk.get("usage"):
            whole["usage"] = {name: value for name, value in chunk["usage"].items() if name != "cost_usd"}
        for piece in chunk.get("choices") or ():
            choice = choices.setdefault(piece["index"], {"index": piece["index"], "finish_reason": None})
            _add_piece(choice, piece)
    if not choices or any(choice["finish_reason"] is None for choice in choices.values()):
        return None
    whole["choices"] = [_seal(choices[index], is_chat=is_chat) for index in sorted(choices)]
    return whole


def split_completion(whole: dict[str, Any], *, is_chat: bool, has_usage: bool) -> bytes:
    """Return a completion as a stream: one chunk of content and one end for each choice.

    Args:
        whole: the completion.
        is_chat: whether it is a chat completion or a legacy one.
        has_usage: whether the caller asked for the last chunk with the usage.
    """
    head = {name: whole[name] for name in _HEAD if name in whole}
    head["object"] = "chat.completion.chunk" if is_chat else "text_completion"
    if has_usage:
        head["usage"] = None
    pieces = _chat_pieces(whole) if is_chat else _text_pieces(whole)
    events = [encode_event(orjson.dumps({**head, "choices": [piece]})) for piece in pieces]
    if has_usage:
        events.append(encode_event(orjson.dumps({**head, "choices": [], "usage": whole.get("usage")})))
    return b"".join(events) + DONE


def _add_piece(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        if value is None or name == "index":
            continue
        if name == "delta":
            _add_delta(choice.setdefault("message", {}), value)
        else:
            choice[name] = _joined(choice.get(name), value) if name in ("text", "logprobs") else value


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for call in value or ():
                calls = message.setdefault("tool_calls", {})
                calls[call["index"]] = _joined_call(calls.get(call["index"], {}), call)
        elif name == "role":
            message["role"] = value
        elif value is not None:
            message[name] = _joined(message.get(name), value)


def _joined_call(call: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    """Return a tool call with the next piece of it; only its arguments come in pieces."""
    function = {**call.get("function", {})}
    for name, value in (piece.get("function") or {}).items():
        function[name] = function.get(name, "") + (value or "") if name == "arguments" else value or function.get(name)
    rest = {name: value for name, value in piece.items() if name not in ("index", "function") and value is not None}
    return {**call, **rest, "function": function}


def _joined(old: Any, new: Any) -> Any:
    match old, new:
        case (str(), str()) | (list(), list()):
            return old + new
        case dict(), dict():
            return {**old, **{name: _joined(old.get(name), value) for name, value in new.items() if value is not None}}
    return new


def _seal(choice: dict[str, Any], *, is_chat: bool) -> dict[str, Any]:
    choice.setdefault("logprobs", None)
    if not is_chat:
        return {**choice, "text": choice.get("text", "")}
    message = {"role": "assistant", "content": None, "refusal": None, **choice.get("message", {})}
    if "tool_calls" in message:
        message["tool_calls"] = [message["tool_calls"][index] for index in sorted(message["tool_calls"])]
        message["content"] = message["content"] or None
    return {**choice, "message": message}


def _chat_pieces(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for choice in whole["choices"]:
        delta = {name: value for name, value in choice["message"].items() if value is not None}
        if delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(delta["tool_calls"])]
        index = choice["index"]
        yield {"index": index, "delta": delta, "logprobs": choice.get("logprobs"), "finish_reason": None}
        yield {"index": index, "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}


def _text_pieces(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for choice in whole["choices"]:
        yield {"logprobs": None, **choice}
