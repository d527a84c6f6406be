"""Answers of Perplexity's agent API, as chat completions and as the full responses that OpenAI's clients expect.

Its responses are OpenAI's with less: no echo of the request, no events for parts of content, no log probabilities.
What its own searches found are items of its own, here written as OpenAI's calls of a web search.
Source: perplexity-py@3485870, `ResponseCreateResponse`, `ResponseStreamChunk`, `OutputItem`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, ProviderFailed, Usage
from mlaas.providers.chat import ChunkWriter, encode_completion
from mlaas.providers.failures import cut_short, unreadable
from mlaas.providers.responses_wire import ResponsesReader, failure_of, parse_response
from mlaas.providers.sse import EventBuffer, split_events

_UNREADABLE: Final = (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError)


def decode_chat(provider: ResponsesReader, body: bytes) -> tuple[bytes, Usage | None]:
    """Return the agent's answer as a chat completion, and its usage.

    Raises:
        ProviderFailed: the answer cannot be read, or reports a failure.
    """
    answer = parse_response(provider, body)
    try:
        usage = provider.parse_response_usage(answer.get("usage"))
        completion = encode_completion(
            id=f"chatcmpl-{answer['id']}",
            model=answer["model"],
            created_s=int(answer["created_at"]),
            message=_decode_output(answer["output"]),
            finish_reason=_finish_reason(answer),
            usage=usage,
        )
    except _UNREADABLE as error:
        raise ProviderFailed(unreadable(provider.name, "an answer that cannot be read")) from error
    return completion, usage


def complete_response(call: Call, response: dict[str, Any]) -> dict[str, Any]:
    """Return the agent's response with every field that OpenAI's has, as the request asked or by default."""
    fields = call.fields
    return {
        "error": None,
        "incomplete_details": None,
        "instructions": fields.get("instructions"),
        "metadata": fields.get("metadata") or {},
        "parallel_tool_calls": True,
        "temperature": None,
        "top_p": None,
        "tool_choice": fields.get("tool_choice") or "auto",
        "tools": fields.get("tools") or [],
        "max_output_tokens": fields.get("max_output_tokens"),
        "text": fields.get("text") or {"format": {"type": "text"}},
        "reasoning": fields.get("reasoning"),
        "truncation": "disabled",
        **response,
        "output": [_complete_item(item, index) for index, item in enumerate(response.get("output") or ())],
        "usage": _complete_usage(response.get("usage")),
    }


class AgentChatStream:
    """Turns the agent's events into chat completion chunks.

    Attributes:
        usage: as the last event states it.
    """

    def __init__(self, provider: ResponsesReader, call: Call) -> None:
        self.usage: Usage | None = None
        self._provider = provider
        self._buffer = EventBuffer(provider.name)
        self._chunks = ChunkWriter(call, id=f"chatcmpl-{time.time_ns():x}")
        self._num_tools = 0
        self._search_results: list[Any] = []
        self._is_done = False

    @property
    def num_deltas(self) -> int:
        """Pieces of content passed on so far."""
        return self._chunks.num_deltas

    def feed(self, chunk: bytes) -> bytes:
        """Return the chunks that the events so far make.

        Raises:
            ProviderFailed: an event reports a failure, or cannot be read.
        """
        try:
            payloads = split_events(self._buffer.feed(chunk))
            return b"".join(self._read(orjson.loads(each)) for each in payloads if each != b"[DONE]")
        except _UNREADABLE as error:
            raise ProviderFailed(unreadable(self._provider.name, "an event that cannot be read")) from error

    def finish(self, cost_usd: Decimal | None) -> bytes:
        """Return the last events.

        Raises:
            ProviderFailed: `response.completed` has not come.
        """
        if not self._is_done:
            raise ProviderFailed(cut_short(self._provider.name))
        return self._chunks.end(self.usage, cost_usd)

    def _read(self, event: dict[str, Any]) -> bytes:
        match event["type"]:
            case "response.failed" | "error":
                raise ProviderFailed(failure_of(self._provider, event))
            case "response.created":
                response = event.get("response") or {}
                self._chunks.begin(id=f"chatcmpl-{response.get('id', '')}", model=response.get("model"))
            case "response.output_text.delta":
                return self._chunks.delta({"content": event["delta"]})
            case "response.output_item.done":
                return self._read_item(event["item"])
            case "response.completed" | "response.incomplete":
                return self._end(event.get("response") or {})
        return b""

    def _read_item(self, item: dict[str, Any]) -> bytes:
        if item["type"] == "search_results":
            self._search_results += item["results"]
        if item["type"] == "message":
            found = _annotations(item["content"])
            return self._chunks.delta({"annotations": found}) if found else b""
        if item["type"] != "function_call":
            return b""
        self._num_tools += 1
        return self._chunks.delta({"tool_calls": [{"index": self._num_tools - 1, **_decode_tool_call(item)}]})

    def _end(self, response: dict[str, Any]) -> bytes:
        self._is_done = True
        self.usage = self._provider.parse_response_usage(response.get("usage"))
        found = self._chunks.delta({"search_results": self._search_results}) if self._search_results else b""
        return found + self._chunks.stop(_finish_reason(response, num_tools=self._num_tools))


class AgentEvents:
    """Completes the agent's events to OpenAI's, so that clients which follow a stream event by event can.

    Added are the parts of content that the text belongs to, fields that OpenAI's events always have, and numbers
    without gaps. What its searches found comes with their items; events that tell how they go on are left out.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._number = 0
        self._parts: dict[tuple[int, int], dict[str, Any]] = {}
        self._is_announced_upstream = False

    def complete(self, event: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Return the events that stand for one of the agent's."""
        for each in self._expand(event):
            yield {**each, "sequence_number": self._number}
            self._number += 1

    def _expand(self, event: dict[str, Any]) -> Iterable[dict[str, Any]]:
        kind = event.get("type")
        if isinstance(event.get("response"), dict):
            event = {**event, "response": complete_response(self._call, event["response"])}
        elif str(kind).startswith("response.reasoning."):
            return
        elif kind == "response.content_part.added":
            self._is_announced_upstream = True
        elif kind == "response.output_text.delta" and not self._is_announced_upstream:
            yield from self._announce(event)
        elif kind == "response.output_item.added":
            # Whatever text an item is announced with comes again as deltas.
            item = {**event["item"], **_EMPTY.get(event["item"]["type"], {})}
            event = {**event, "item": _complete_item(item, event["output_index"])}
        elif kind == "response.output_item.done":
            yield from self._close(event)
            event = {**event, "item": _complete_item(event["item"], event["output_index"])}
        if kind in ("response.output_text.delta", "response.output_text.done"):
            event = {"logprobs": [], **event}
        yield event

    def _announce(self, event: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        place = (event["output_index"], event["content_index"])
        if place not in self._parts:
            self._parts[place] = {field: event[field] for field in ("item_id", "output_index", "content_index")}
            part = {"type": "output_text", "text": "", "annotations": []}
            yield {"type": "response.content_part.added", **self._parts[place], "part": part}

    def _close(self, event: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        for (output_index, content_index), place in self._parts.items():
            if output_index == event["output_index"]:
                part = _complete_item(event["item"], output_index)["content"][content_index]
                yield {"type": "response.content_part.done", **place, "part": part}


_EMPTY: Final[Mapping[str, dict[str, Any]]] = {"message": {"content": []}}


def _decode_output(output: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    calls = [_decode_tool_call(item) for item in output if item["type"] == "function_call"]
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    if found := _annotations(parts):
        message["annotations"] = found
    if results := [each for item in output if item["type"] == "search_results" for each in item["results"]]:
        message["search_results"] = results
    return message


def _decode_tool_call(item: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": item["name"], "arguments": item["arguments"]}
    call: dict[str, Any] = {"id": item["call_id"], "type": "function", "function": function}
    if item.get("thought_signature"):
        call["extra_content"] = {"google": {"thought_signature": item["thought_signature"]}}
    return call


def _annotations(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the citations of a text as those of a chat."""
    fields = ("start_index", "end_index", "title", "url")
    return [
        {"type": "url_citation", "url_citation": {field: each[field] for field in fields}}
        for part in parts
        for each in part.get("annotations") or ()
        if all(each.get(field) is not None for field in fields)
    ]


def _complete_item(item: dict[str, Any], index: int) -> dict[str, Any]:
    """Return an item of the output as one of OpenAI's, with what the agent says beyond that."""
    match item.get("type"):
        case "message":
            content = [{**part, "annotations": part.get("annotations") or []} for part in item["content"]]
            return {**item, "content": content}
        case "search_results":
            sources = [{"type": "url", "url": each["url"]} for each in item["results"]]
            action = {"type": "search", "queries": item.get("queries"), "sources": sources}
        case "fetch_url_results":
            action = {"type": "open_page", "url": next((each["url"] for each in item["contents"]), None)}
        case _:
            return item
    return {**item, "id": f"ws_{index}", "type": "web_search_call", "status": "completed", "action": action}


def _complete_usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("input_tokens_details") or {}
    return {
        **usage,
        "input_tokens_details": {
            **details,
            "cached_tokens": details.get("cache_read_input_tokens") or 0,
            "cache_write_tokens": details.get("cache_creation_input_tokens") or 0,
        },
        "output_tokens_details": {"reasoning_tokens": 0, **(usage.get("output_tokens_details") or {})},
    }


def _finish_reason(response: Mapping[str, Any], *, num_tools: int = 0) -> str:
    if num_tools or any(item["type"] == "function_call" for item in response.get("output") or ()):
        return "tool_calls"
    return "length" if response.get("status") == "incomplete" else "stop"
