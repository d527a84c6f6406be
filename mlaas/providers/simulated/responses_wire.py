"""OpenAI's Responses API, and Perplexity's agent API, which is like it.

Source: OpenAI API reference, responses and their streaming events; Perplexity's Python SDK, types of
`responses.create`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlaas.providers.simulated.refusals import Refusal, encode_refusal
from mlaas.providers.simulated.script import BadRequest, Prompt, Script, ToolCall
from mlaas.providers.simulated.wire import Json, bill_usd, encode_event, read_text

_CREATED_S = 1_700_000_000


class ResponsesWire:
    """`/responses`, and Perplexity's `/agent`."""

    def read(self, body: Mapping[str, Any]) -> Prompt:
        """Return what a response is asked for."""
        items = body.get("input")
        if isinstance(items, str):
            items = [{"role": "user", "content": items}]
        if not isinstance(items, list) or not items:
            raise BadRequest("'input' must be a text or a list that is not empty", "input")
        choice = body.get("tool_choice") or "auto"
        form = (body.get("text") or {}).get("format") or body.get("response_format") or {}
        functions = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
        return Prompt(
            texts=[*read_text(body.get("instructions")), *(text for item in items for text in _read_item(item))],
            tools={tool["name"]: tool.get("parameters") or {} for tool in functions},
            tool_choice=choice if isinstance(choice, str) else choice.get("name", "auto"),
            is_parallel=body.get("parallel_tool_calls") is not False,
            schema=form.get("schema") or (form.get("json_schema") or {}).get("schema"),
            is_reasoning=(body.get("reasoning") or {}).get("effort") not in (None, "none"),
            is_answering_tools=items[-1].get("type") == "function_call_output",
            max_tokens=body.get("max_output_tokens"),
        )

    def answer(self, body: Mapping[str, Any], script: Script, vendor: str) -> Json:
        """Return a response that is complete."""
        is_cut = script.finish == "length"
        return {
            **_head(body, script, "incomplete" if is_cut else "completed"),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": [item for item, _ in _items(script, vendor)],
            "usage": _usage(script, vendor) if script.has_usage else None,
        }

    def events(self, body: Mapping[str, Any], script: Script, vendor: str) -> Sequence[bytes]:
        """Return the events of a response."""
        whole = self.answer(body, script, vendor)
        start = {**_head(body, script, "in_progress"), "incomplete_details": None, "output": [], "usage": None}
        values: list[Json] = [
            {"type": "response.created", "response": start},
            {"type": "response.in_progress", "response": start},
        ]
        for index, (item, events) in enumerate(_items(script, vendor)):
            empty: Json = {
                key: [] if key in ("content", "summary") else "" if key == "arguments" else item[key] for key in item
            }
            empty |= {"status": "in_progress"} if "status" in item else {}
            values.append({"type": "response.output_item.added", "output_index": index, "item": empty})
            values += [{**event, "output_index": index, "item_id": item.get("id", "")} for event in events]
            values.append({"type": "response.output_item.done", "output_index": index, "item": item})
        values.append({"type": f"response.{whole['status']}", "response": whole})
        return [encode_event({**value, "sequence_number": at}, value["type"]) for at, value in enumerate(values)]

    def error_event(self, vendor: str, refusal: Refusal) -> bytes:
        """Return an `error` event, or Perplexity's `response.failed`."""
        if vendor == "perplexity":
            error = encode_refusal(vendor, refusal)["error"]
            return encode_event({"type": "response.failed", "error": error, "sequence_number": 0}, "response.failed")
        value = {"type": "error", "code": refusal.code, "message": refusal.message, "param": None, "sequence_number": 0}
        return encode_event(value, "error")


def _read_item(item: Mapping[str, Any]) -> list[str]:
    if item.get("type") == "function_call_output":
        return read_text(item.get("output"))
    return read_text(item.get("content"))


def _head(body: Mapping[str, Any], script: Script, status: str) -> Json:
    return {
        "id": f"resp_{script.id}",
        "object": "response",
        "created_at": _CREATED_S,
        "model": body["model"],
        "status": status,
        "error": None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
    }


def _items(script: Script, vendor: str) -> Iterator[tuple[Json, list[Json]]]:
    """Yield each item of the output with the events between its beginning and its end."""
    if vendor == "perplexity":
        yield {"type": "search_results", "results": [], "queries": ["query"]}, []
    if script.reasoning:
        yield _reasoning(script)
    for index, call in enumerate(script.calls):
        yield _call(script, call, index)
    if script.pieces:
        yield _message(script)


def _reasoning(script: Script) -> tuple[Json, list[Json]]:
    text = "".join(script.reasoning)
    part = {"type": "summary_text", "text": text}
    at = {"summary_index": 0}
    events: list[Json] = [
        {"type": "response.reasoning_summary_part.added", "part": {**part, "text": ""}, **at},
        *({"type": "response.reasoning_summary_text.delta", "delta": piece, **at} for piece in script.reasoning),
        {"type": "response.reasoning_summary_text.done", "text": text, **at},
        {"type": "response.reasoning_summary_part.done", "part": part, **at},
    ]
    return {"type": "reasoning", "id": f"rs_{script.id}", "summary": [part], "encrypted_content": None}, events


def _call(script: Script, call: ToolCall, index: int) -> tuple[Json, list[Json]]:
    item = {
        "type": "function_call",
        "id": f"fc_{script.id}{index}",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": "completed",
    }
    deltas: list[Json] = [{"type": "response.function_call_arguments.delta", "delta": piece} for piece in call.pieces]
    done = {"type": "response.function_call_arguments.done", "name": call.name, "arguments": call.arguments}
    return item, [*deltas, done]


def _message(script: Script) -> tuple[Json, list[Json]]:
    part: Json = {"type": "output_text", "text": script.text, "annotations": [], "logprobs": []}
    at = {"content_index": 0}
    deltas = [{"type": "response.output_text.delta", "delta": piece, "logprobs": [], **at} for piece in script.pieces]
    events: list[Json] = [
        {"type": "response.content_part.added", "part": {**part, "text": ""}, **at},
        *deltas,
        {"type": "response.output_text.done", "text": script.text, "logprobs": [], **at},
        {"type": "response.content_part.done", "part": part, **at},
    ]
    item = {"type": "message", "id": f"msg_{script.id}", "role": "assistant", "status": "completed", "content": [part]}
    return item, events


def _usage(script: Script, vendor: str) -> Json:
    details: Json = {"cached_tokens": script.cache_read_tokens, "cache_write_tokens": script.cache_write_tokens}
    value: Json = {
        "input_tokens": script.input_tokens,
        "input_tokens_details": details,
        "output_tokens": script.output_tokens,
        "output_tokens_details": {"reasoning_tokens": script.reasoning_tokens},
        "total_tokens": script.input_tokens + script.output_tokens,
    }
    if vendor == "xai":
        value["cost_in_usd_ticks"] = int(bill_usd(script) * 10**10)
    if vendor == "perplexity":
        value["input_tokens_details"] = {
            "cache_read_input_tokens": script.cache_read_tokens,
            "cache_creation_input_tokens": script.cache_write_tokens,
        }
        read, written = script.input_tokens / 10**6, 2 * script.output_tokens / 10**6
        total = float(bill_usd(script))
        value["cost"] = {"currency": "USD", "input_cost": read, "output_cost": written, "total_cost": total}
    return value
