"""A chat completion as an answer of Anthropic's Messages API: what whole and streamed answers share, and the whole one.

Source: Anthropic API reference, messages; OpenAI API reference, chat completions; types of both Python SDKs.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, ProviderFailed
from mlaas.providers.chat import encode_cost, parse_usage
from mlaas.providers.failures import unreadable
from mlaas.providers.thinking import unsigned_thinking
from mlaas.router.dialects.messages_sources import Sources

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
UNREADABLE: Final = (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, IndexError)
"""What reading an upstream's answer of another shape than a chat's raises."""


def decode_completion(call: Call, answer: bytes) -> bytes:
    """Return a chat completion as a message.

    A tool call that was cut off by the limit of tokens is left out: nothing can be called with half of its arguments.

    Raises:
        ProviderFailed: the completion cannot be read, or a tool call's arguments are no JSON object.
    """
    try:
        completion = orjson.loads(answer)
        choice = completion["choices"][0]
        written = choice["message"]
        stop_reason, stop_sequence = read_stop(
            call, choice, has_tools=bool(written.get("tool_calls")), is_refused=bool(written.get("refusal"))
        )
        message = {
            "id": message_id(completion),
            "type": "message",
            "role": "assistant",
            "model": completion.get("model") or call.model,
            "content": _encode_content(completion, written, is_cut=stop_reason == "max_tokens"),
            "stop_reason": stop_reason,
            "stop_sequence": stop_sequence,
            "usage": encode_usage(completion.get("usage")),
        }
    except UNREADABLE as error:
        raise ProviderFailed(unreadable("the model", "an answer that cannot be read")) from error
    return orjson.dumps(message)


def message_id(completion: Mapping[str, Any]) -> str:
    """Return the message's id for a chat completion or chunk."""
    given = str(completion.get("id") or "")
    return given if given.startswith("msg_") else f"msg_{given.removeprefix('chatcmpl-')}"


def read_stop(call: Call, choice: Mapping[str, Any], *, has_tools: bool, is_refused: bool) -> tuple[str, str | None]:
    """Return why a message ended, and at which stop sequence: vLLM says so in `stop_reason`.

    A call of a tool that was asked for by name ends with `stop` at OpenAI, with `tool_use` at Anthropic.
    """
    matched = choice.get("stop_reason")
    if isinstance(matched, str) and matched in (call.fields.get("stop_sequences") or ()):
        return "stop_sequence", matched
    if is_refused:
        return "refusal", None
    reason = _STOP_REASONS.get(str(choice.get("finish_reason")), "end_turn")
    return ("tool_use" if has_tools and reason == "end_turn" else reason), None


def encode_usage(value: object, cost_usd: Decimal | None = None) -> dict[str, Any]:
    """Return Anthropic's usage of OpenAI's: there, cached tokens are not in `input_tokens`.

    Some upstreams leave reasoning out of `completion_tokens`; what `total_tokens` has on top is theirs.
    """
    usage = parse_usage(value)
    encoded: dict[str, Any] = {"input_tokens": 0, "output_tokens": 0}
    if usage is not None and isinstance(value, Mapping):
        total = value.get("total_tokens")
        left_out = max(0, total - usage.total_tokens) if isinstance(total, int) else 0
        encoded = {
            "input_tokens": usage.input_tokens,
            "cache_creation_input_tokens": usage.cache_write_tokens,
            "cache_read_input_tokens": usage.cache_read_tokens,
            "output_tokens": usage.output_tokens + left_out,
        }
        if usage.reasoning_tokens or left_out:
            encoded["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens or left_out}
    if cost_usd is not None:
        encoded["cost_usd"] = orjson.Fragment(encode_cost(cost_usd))
    return encoded


def reasoning_of(message: Mapping[str, Any]) -> str:
    """Return the reasoning text of a message or delta; newer servers of vLLM's kind call it `reasoning`."""
    text = message.get("reasoning_content") or message.get("reasoning")
    return text if isinstance(text, str) else ""


def tool_block(call: Mapping[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """Return the block of a tool call with its input; another provider's signature stays with it."""
    block = {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": value}
    return {**block, "extra_content": call["extra_content"]} if call.get("extra_content") else block


def _encode_content(completion: Mapping[str, Any], message: Mapping[str, Any], *, is_cut: bool) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = list(message.get("thinking_blocks") or ())
    if not blocks and (reasoning := reasoning_of(message)):
        blocks = [unsigned_thinking(reasoning)]
    for text in (message.get("content"), message.get("refusal")):
        if text:
            blocks.append({"type": "text", "text": text})
    sources = Sources()
    sources.read(completion, message)
    if cited := sources.citations(message.get("content") or ""):
        if not blocks or blocks[-1]["type"] != "text":
            blocks.append({"type": "text", "text": ""})
        blocks[-1]["citations"] = cited
    for call in message.get("tool_calls") or ():
        value = _parse_input(call["function"]["arguments"])
        if value is not None:
            blocks.append(tool_block(call, value))
        elif not is_cut:
            raise ProviderFailed(unreadable("the model", "a tool call whose arguments are no JSON object"))
    return blocks


def _parse_input(text: str | None) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
