"""What the vendors refuse with 400 and others do not.

Source: OpenAI, Anthropic, Gemini and xAI API references; Perplexity's Python SDK, types of `responses.create`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mlaas.providers.simulated.chat_wire import sign_call
from mlaas.providers.simulated.messages_wire import sign_thinking
from mlaas.providers.simulated.script import BadRequest

_OPENAI_REASONING = re.compile(r"gpt-[5-9]|o[1-9]\b")
_SAMPLING: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs")
_CLAUDE_UNSAMPLED = re.compile(r"claude-(?:opus-(?:4-[78]|5)|sonnet-5|fable-5|mythos-5)")
_CLAUDE_UNFORCED = re.compile(r"claude-(?:opus-5-5|fable-5-1)")
_GEMINI_SIGNED = re.compile(r"gemini-(?:[3-9]|\d\d)")
_GROK_REASONING = re.compile(r"grok-4")
_MESSAGE_FIELDS: Final = frozenset(
    {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "function_call", "annotations"}
)
# What an answer's size grows with, without end: the vendors and vLLM have such bounds too.
_MOST: Final = {"n": 128, "dimensions": 4096}
_AGENT_FIELDS: Final = frozenset(
    {
        "model",
        "models",
        "input",
        "instructions",
        "stream",
        "max_output_tokens",
        "max_steps",
        "preset",
        "language_preference",
        "reasoning",
        "response_format",
        "tools",
    }
)


def check_rules(vendor: str, body: Mapping[str, Any]) -> None:
    """Check a request against its vendor's own rules.

    Raises:
        BadRequest: the vendor would refuse it.
    """
    for name, most in _MOST.items():
        value = body.get(name)
        if value is not None and not 1 <= value <= most:
            raise BadRequest(f"'{name}' must be from 1 to {most}", name)
    rule = _RULES.get(vendor)
    if rule is not None:
        rule(body, str(body.get("model")))


def _check_openai(body: Mapping[str, Any], model: str) -> None:
    for index, message in enumerate(body.get("messages") or ()):
        unknown = sorted(message.keys() - _MESSAGE_FIELDS)
        if unknown:
            raise BadRequest(f"Unknown parameter: 'messages[{index}].{unknown[0]}'.", f"messages[{index}].{unknown[0]}")
    if not _OPENAI_REASONING.match(model):
        return
    if body.get("messages") and body.get("max_tokens") is not None:
        raise BadRequest("Unsupported parameter: use 'max_completion_tokens' instead of 'max_tokens'.", "max_tokens")
    effort = body.get("reasoning_effort") or (body.get("reasoning") or {}).get("effort")
    refused = next((name for name in _SAMPLING if body.get(name) not in (None, False, 1)), None)
    if refused and effort != "none":
        raise BadRequest(f"Unsupported parameter: '{refused}' is not supported with this model.", refused)


def _check_anthropic(body: Mapping[str, Any], model: str) -> None:
    if "max_tokens" not in body and "stream" in body:
        raise BadRequest("max_tokens: Field required", "max_tokens")
    if _CLAUDE_UNSAMPLED.match(model):
        refused = next((name for name in ("temperature", "top_p", "top_k") if body.get(name) is not None), None)
        if refused:
            raise BadRequest(f"{refused}: not supported by this model", refused)
    if _CLAUDE_UNFORCED.match(model) and (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise BadRequest("tool_choice: this model cannot be forced to use a tool", "tool_choice")
    messages: Sequence[Mapping[str, Any]] = body.get("messages") or ()
    for index, message in enumerate(messages):
        _check_blocks(index, message, messages[index + 1] if index + 1 < len(messages) else None)


def _check_blocks(index: int, message: Mapping[str, Any], following: Mapping[str, Any] | None) -> None:
    blocks = message["content"] if isinstance(message["content"], list) else []
    for block in blocks:
        if block.get("type") == "thinking" and block.get("signature") != sign_thinking(block.get("thinking", "")):
            raise BadRequest(f"messages.{index}: Invalid `signature` in `thinking` block")
    asked = {block["id"] for block in blocks if block.get("type") == "tool_use"}
    content = following["content"] if following is not None and isinstance(following["content"], list) else []
    answered = {block.get("tool_use_id") for block in content if block.get("type") == "tool_result"}
    if not asked <= answered:
        raise BadRequest(f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after")


def _check_gemini(body: Mapping[str, Any], model: str) -> None:
    if not _GEMINI_SIGNED.match(model.removeprefix("models/")):
        return
    for message in body.get("messages") or ():
        calls = message.get("tool_calls") or ()
        if not calls:
            continue
        google = (calls[0].get("extra_content") or {}).get("google") or {}
        known = (sign_call(calls[0]["id"]), "skip_thought_signature_validator")
        if google.get("thought_signature") not in known:
            raise BadRequest(f"Function call {calls[0]['id']!r} is missing a valid thought_signature")


def _check_xai(body: Mapping[str, Any], model: str) -> None:
    refused = next((name for name in ("presence_penalty", "frequency_penalty", "stop") if body.get(name)), None)
    if refused and _GROK_REASONING.match(model) and body.get("reasoning_effort") != "none":
        raise BadRequest(f"Argument not supported on this model: {refused}", refused)


def _check_perplexity(body: Mapping[str, Any], model: str) -> None:
    unknown = sorted(body.keys() - _AGENT_FIELDS)
    if "input" in body and unknown:
        raise BadRequest(f"unknown field {unknown[0]!r}", unknown[0])


_RULES: Final[dict[str, Callable[[Mapping[str, Any], str], None]]] = {
    "openai": _check_openai,
    "anthropic": _check_anthropic,
    "gemini": _check_gemini,
    "xai": _check_xai,
    "perplexity": _check_perplexity,
}
