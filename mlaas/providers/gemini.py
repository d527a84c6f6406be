"""Google Gemini, through its OpenAI-compatible endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson

from mlaas.providers.base import Answer, Call, Operation, StreamDecoder, Usage
from mlaas.providers.chat import is_usage_asked
from mlaas.providers.gemini_stream import GeminiStream
from mlaas.providers.openai_compatible import OpenAICompatible, strip_message
from mlaas.providers.splice import set_member

SKIP_SIGNATURE = "skip_thought_signature_validator"
"""What Gemini takes in place of a signature on a tool call that it did not make."""

_OLD_MODEL = re.compile(r"(?:models/)?gemini-[12]\b")


class Gemini(OpenAICompatible):
    """Gemini's compatible endpoint. Its errors are a list with one object.

    Gemini 3 and later refuse a history in which the first tool call of an assistant's turn lacks the thought signature
    it came with. Signatures travel in `tool_calls[].extra_content`; calls made by another provider get the value that
    skips the check. Source: ai.google.dev, OpenAI compatibility and thought signatures.
    """

    default_url = "https://generativelanguage.googleapis.com/v1beta/openai"
    operations = frozenset({Operation.CHAT, Operation.EMBEDDINGS})
    foreign_fields: ClassVar[frozenset[str]] = frozenset({"thinking_blocks", "reasoning_content", "search_results"})

    def encode_messages(self, call: Call, body: bytes, *, model: str) -> bytes:
        """Return the body of a chat in which every turn with tool calls carries a signature."""
        body = super().encode_messages(call, body, model=model)
        messages = call.fields["messages"]
        if _OLD_MODEL.match(model) or not any(_is_unsigned(message) for message in messages):
            return body
        signed = [_sign(strip_message(message, self.foreign_fields)) for message in messages]
        return set_member(body, "messages", orjson.dumps(signed))

    def decode_answer(self, call: Call, body: bytes) -> Answer:
        """Return the answer; where it calls tools, its `finish_reason` says so, which Gemini's may not.

        Raises:
            ProviderFailed: it cannot be read.
        """
        answer = super().decode_answer(call, body)
        if b'"tool_calls"' not in answer.body:
            return answer
        value = orjson.loads(answer.body)
        for choice in value.get("choices") or ():
            if choice.get("finish_reason") == "stop" and (choice.get("message") or {}).get("tool_calls"):
                choice["finish_reason"] = "tool_calls"
        return Answer(body=orjson.dumps(value), usage=answer.usage)

    def decode_stream(self, call: Call) -> StreamDecoder:
        """Return a decoder that passes chunks through, but for what Gemini's differ in."""
        return GeminiStream(self, is_usage_asked=is_usage_asked(call))

    def parse_usage(self, value: object) -> Usage | None:
        """Return the usage. Thinking is missing from `completion_tokens` and shows only in `total_tokens`."""
        usage = super().parse_usage(value)
        total = value.get("total_tokens") if isinstance(value, Mapping) else None
        if usage is None or not isinstance(total, int) or total <= usage.total_tokens:
            return usage
        thinking = total - usage.total_tokens
        return Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens + thinking,
            reasoning_tokens=usage.reasoning_tokens + thinking,
        )


def _is_unsigned(message: Mapping[str, Any]) -> bool:
    calls = message.get("tool_calls")
    if message.get("role") != "assistant" or not calls or not isinstance(calls, list) or not isinstance(calls[0], dict):
        return False
    extra = calls[0].get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return not (isinstance(google, dict) and google.get("thought_signature"))


def _sign(message: dict[str, Any]) -> dict[str, Any]:
    if not _is_unsigned(message):
        return message
    first, *others = message["tool_calls"]
    signed = {**first, "extra_content": {"google": {"thought_signature": SKIP_SIGNATURE}}}
    return {**message, "tool_calls": [signed, *others]}
