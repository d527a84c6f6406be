"""A chat completion as a response.

Source: openai-python, `Response` and `ResponseOutputItem`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, ProviderFailed
from mlaas.providers.chat import encode_cost
from mlaas.providers.failures import unreadable
from mlaas.providers.sealed_thinking import seal_thinking

UNREADABLE: Final = (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What reading a chat completion raises that is none."""

_ECHOED: Final = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "safety_identifier",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
)
_TIERS: Final = ("auto", "default", "flex", "scale", "priority")
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


def new_id(prefix: str) -> str:
    """Return an identifier that nobody can guess."""
    return f"{prefix}_{uuid.uuid4().hex}"


def describe_response(call: Call, *, id: str, created_at_s: int, status: str) -> dict[str, Any]:  # noqa: A002  # OpenAI's
    """Return a response without output, with all that it repeats of its request.

    Args:
        call: the caller's own request.
        id: of the response.
        created_at_s: seconds since 1970.
        status: OpenAI's `status`.
    """
    fields = call.fields
    reasoning = fields.get("reasoning") or {}
    return {
        "id": id,
        "object": "response",
        "created_at": created_at_s,
        "status": status,
        "background": bool(fields.get("background")),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "metadata": fields.get("metadata") or {},
        "model": call.model,
        "output": [],
        "parallel_tool_calls": fields.get("parallel_tool_calls") is not False,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": None,
        "store": fields.get("store") is not False,
        "text": {"format": {"type": "text"}, **(fields.get("text") or {})},
        "tool_choice": fields.get("tool_choice") or "auto",
        "tools": fields.get("tools") or [],
        "truncation": fields.get("truncation") or "disabled",
        "usage": None,
        **{name: fields.get(name) for name in _ECHOED},
    }


def end_response(
    response: Mapping[str, Any],
    *,
    output: list[dict[str, Any]],
    finish_reason: str | None,
    usage: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return a response with its output, as it ended."""
    reason = _INCOMPLETE.get(finish_reason or "")
    if reason is None:
        ended: dict[str, Any] = {"status": "completed", "completed_at": int(time.time())}
    else:
        ended = {"status": "incomplete", "incomplete_details": {"reason": reason}}
    return {**response, **ended, "output": output, "usage": usage}


def decode_completion(call: Call, answer: bytes) -> bytes:
    """Return a chat completion as a response.

    Args:
        call: the caller's own request.
        answer: the completion.

    Raises:
        ProviderFailed: the completion cannot be read.
    """
    try:
        completion = orjson.loads(answer)
        choice = completion["choices"][0]
        reason = choice.get("finish_reason")
        response = describe_response(
            call, id=new_id("resp"), created_at_s=int(completion.get("created") or time.time()), status="completed"
        )
        response["model"] = completion.get("model") or call.model
        response |= {"service_tier": read_tier(completion), **read_sources(completion)}
        output = _encode_output(choice["message"], read_logprobs(choice))
        if output and "status" in output[-1]:
            output[-1]["status"] = item_status(reason)
        usage = encode_usage(completion.get("usage"), None)
        return orjson.dumps(end_response(response, output=output, finish_reason=reason, usage=usage))
    except UNREADABLE as error:
        raise ProviderFailed(unreadable("the model", "an answer that cannot be read")) from error


def item_status(finish_reason: str | None) -> str:
    """Return the status of the last item of an answer; what came before it is complete."""
    return "incomplete" if finish_reason in _INCOMPLETE else "completed"


def encode_usage(usage: object, cost_usd: Decimal | None) -> dict[str, Any] | None:
    """Return a response's usage from a chat's, None from none."""
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    value: dict[str, Any] = {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": read.get("cached_tokens") or 0,
            "cache_write_tokens": read.get("cache_write_tokens") or 0,
        },
        "output_tokens": usage.get("completion_tokens") or 0,
        "output_tokens_details": {"reasoning_tokens": written.get("reasoning_tokens") or 0},
        "total_tokens": usage.get("total_tokens") or usage["prompt_tokens"] + (usage.get("completion_tokens") or 0),
    }
    if cost_usd is not None:
        value["cost_usd"] = orjson.Fragment(encode_cost(cost_usd))
    return value


def read_reasoning(message: Mapping[str, Any]) -> str:
    """Return the reasoning of a message or delta; vLLM calls it `reasoning`."""
    return message.get("reasoning_content") or message.get("reasoning") or ""


def read_logprobs(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the log probabilities of a choice's text."""
    return [
        {
            "token": each["token"],
            "bytes": each.get("bytes") or [],
            "logprob": each["logprob"],
            "top_logprobs": [{**top, "bytes": top.get("bytes") or []} for top in each.get("top_logprobs") or ()],
        }
        for each in (choice.get("logprobs") or {}).get("content") or ()
    ]


def read_annotations(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the citations of a message or delta as a response's."""
    return [
        {"type": "url_citation", **each["url_citation"]}
        for each in message.get("annotations") or ()
        if each.get("type") == "url_citation"
    ]


def read_tier(completion: Mapping[str, Any]) -> str | None:
    """Return the service tier of a completion or chunk, None of one that OpenAI does not know."""
    tier = completion.get("service_tier")
    return tier if tier in _TIERS else None


def read_sources(completion: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a completion or chunk of Sonar's says of its sources, in its own words."""
    return {name: completion[name] for name in ("citations", "search_results") if completion.get(name)}


def encode_reasoning(text: str, blocks: list[Any]) -> dict[str, Any]:
    """Return a reasoning item: its text as a summary, signed blocks sealed."""
    return {
        "id": new_id("rs"),
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}] if text else [],
        "encrypted_content": seal_thinking(blocks) if blocks else None,
    }


def encode_call(call: Mapping[str, Any], *, arguments: str, status: str) -> dict[str, Any]:
    """Return the item of a function call."""
    item = {
        "id": new_id("fc"),
        "type": "function_call",
        "status": status,
        "call_id": call["id"],
        "name": call["function"]["name"],
        "arguments": arguments,
    }
    if call.get("extra_content"):
        item["extra_content"] = call["extra_content"]
    return item


def _encode_output(message: Mapping[str, Any], logprobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    reasoning, blocks = read_reasoning(message), message.get("thinking_blocks") or []
    if reasoning or blocks:
        items.append(encode_reasoning(reasoning, blocks))
    content: list[dict[str, Any]] = []
    if message.get("content"):
        annotations = read_annotations(message)
        content.append(
            {"type": "output_text", "text": message["content"], "annotations": annotations, "logprobs": logprobs}
        )
    if message.get("refusal"):
        content.append({"type": "refusal", "refusal": message["refusal"]})
    calls = [
        encode_call(call, arguments=call["function"]["arguments"], status="completed")
        for call in message.get("tool_calls") or ()
    ]
    if content:
        items.append(
            {"id": new_id("msg"), "type": "message", "role": "assistant", "status": "completed", "content": content}
        )
    return items + calls
