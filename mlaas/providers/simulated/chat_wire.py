"""OpenAI's chat completions and completions, with the quirks of those who speak them too.

Source: OpenAI API reference; ai.google.dev, OpenAI compatibility; docs.x.ai; Perplexity's Python SDK; vLLM,
`chat_completion/protocol.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlaas.providers.simulated.refusals import Refusal, encode_refusal
from mlaas.providers.simulated.script import BadRequest, Prompt, Script, ToolCall
from mlaas.providers.simulated.wire import Json, bill_usd, encode_event, read_text

DONE = b"data: [DONE]\n\n"
_CREATED_S = 1_700_000_000
_REASONING_FIELD = {"vllm": "reasoning", "xai": "reasoning_content", "plain": "reasoning_content"}
_WHOLE_CALLS = ("gemini", "xai")


class ChatWire:
    """`/chat/completions`."""

    def read(self, body: Mapping[str, Any]) -> Prompt:
        """Return what a chat asks for."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise BadRequest("'messages' must be a list that is not empty", "messages")
        functions = [tool.get("function", {}) for tool in body.get("tools") or ()]
        choice = body.get("tool_choice") or "auto"
        form = body.get("response_format") or {}
        stop = body.get("stop") or ()
        return Prompt(
            texts=[text for message in messages for text in read_text(message.get("content"))],
            tools={function["name"]: function.get("parameters") or {} for function in functions if "name" in function},
            tool_choice=choice if isinstance(choice, str) else choice["function"]["name"],
            is_parallel=body.get("parallel_tool_calls") is not False,
            schema=_read_schema(form),
            is_reasoning=body.get("reasoning_effort") not in (None, "none"),
            is_answering_tools=messages[-1].get("role") == "tool",
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
            stop=[stop] if isinstance(stop, str) else stop,
            num_choices=body.get("n") or 1,
        )

    def answer(self, body: Mapping[str, Any], script: Script, vendor: str) -> Json:
        """Return a chat completion."""
        message: Json = {"role": "assistant", "content": script.text if not script.calls else None}
        if vendor == "openai":
            message["refusal"] = None
        if script.calls:
            message["tool_calls"] = [_whole_call(call, index, vendor) for index, call in enumerate(script.calls)]
        if script.reasoning and vendor in _REASONING_FIELD:
            message[_REASONING_FIELD[vendor]] = "".join(script.reasoning)
        logprobs = _logprobs(script.pieces) if body.get("logprobs") else None
        finish = "stop" if vendor == "gemini" and script.calls else script.finish
        choice = {"message": message, "finish_reason": finish, "logprobs": logprobs}
        choices = [{"index": index, **choice} for index in range(body.get("n") or 1)]
        head = _head(body, script, "chat.completion")
        return {**head, "choices": choices, **_extras(vendor), **_usage_member(script, vendor)}

    def events(self, body: Mapping[str, Any], script: Script, vendor: str) -> Sequence[bytes]:
        """Return the chunks of a chat completion."""
        head = _head(body, script, "chat.completion.chunk")
        is_asked = bool((body.get("stream_options") or {}).get("include_usage"))
        usage = _usage_member(script, vendor)
        has_late_usage = vendor in ("gemini", "xai", "perplexity")
        if is_asked and not has_late_usage:
            head["usage"] = None
        num_choices = body.get("n") or 1
        events = []
        for index in range(num_choices):
            for delta, finish in _deltas(script, vendor):
                choice = {
                    "index": index,
                    "delta": delta,
                    "logprobs": _piece_logprobs(body, delta),
                    "finish_reason": finish,
                }
                events.append({**head, "choices": [choice]})
        if has_late_usage:
            events[-1] |= usage | _extras(vendor)
        elif is_asked and usage:
            events.append({**head, "choices": [], **usage})
        if vendor == "perplexity":
            events = list(_with_messages(events))
        return [*(encode_event(event) for event in events), DONE]

    def error_event(self, vendor: str, refusal: Refusal) -> bytes:
        """Return an event that holds the vendor's error body."""
        return encode_event(encode_refusal(vendor, refusal))


class CompletionWire:
    """`/completions`."""

    def read(self, body: Mapping[str, Any]) -> Prompt:
        """Return what a completion asks for."""
        if not isinstance(body.get("prompt"), str):
            raise BadRequest("'prompt' must be a string", "prompt")
        stop = body.get("stop") or ()
        return Prompt(
            texts=[body["prompt"]],
            tools={},
            max_tokens=body.get("max_tokens"),
            stop=[stop] if isinstance(stop, str) else stop,
        )

    def answer(self, body: Mapping[str, Any], script: Script, vendor: str) -> Json:
        """Return a completion."""
        choice = {"index": 0, "text": script.text, "finish_reason": script.finish, "logprobs": None}
        return {**_head(body, script, "text_completion"), "choices": [choice], **_usage_member(script, vendor)}

    def events(self, body: Mapping[str, Any], script: Script, vendor: str) -> Sequence[bytes]:
        """Return the chunks of a completion."""
        head = _head(body, script, "text_completion")
        last = len(script.pieces) - 1
        events: list[Json] = []
        for position, piece in enumerate(script.pieces):
            finish = script.finish if position == last else None
            events.append({**head, "choices": [{"index": 0, "text": piece, "finish_reason": finish, "logprobs": None}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            events.append({**head, "choices": [], **_usage_member(script, vendor)})
        return [*(encode_event(event) for event in events), DONE]

    def error_event(self, vendor: str, refusal: Refusal) -> bytes:
        """Return an event that holds the vendor's error body."""
        return encode_event(encode_refusal(vendor, refusal))


def sign_call(call_id: str) -> str:
    """Return the thought signature that Gemini gives a tool call, and wants to see again."""
    return hashlib.sha256(call_id.encode()).hexdigest()[:16]


def _read_schema(form: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if form.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    return (form.get("json_schema") or {}).get("schema") if form.get("type") == "json_schema" else None


def _head(body: Mapping[str, Any], script: Script, kind: str) -> Json:
    return {"id": f"chatcmpl-{script.id}", "object": kind, "created": _CREATED_S, "model": body["model"]}


def _whole_call(call: ToolCall, index: int, vendor: str) -> Json:
    value: Json = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    if vendor == "gemini" and index == 0:
        value["extra_content"] = {"google": {"thought_signature": sign_call(call.id)}}
    return value


def _deltas(script: Script, vendor: str) -> Iterator[tuple[Json, str | None]]:
    """Yield each delta and the reason to stop that goes with it."""
    yield {"role": "assistant", "content": ""}, None
    if vendor in _REASONING_FIELD:
        for piece in script.reasoning:
            yield {_REASONING_FIELD[vendor]: piece}, None
    for piece in script.pieces:
        yield {"content": piece}, None
    for index, call in enumerate(script.calls):
        if vendor in _WHOLE_CALLS:
            number = 0 if vendor == "gemini" else index
            premature = "tool_calls" if vendor == "gemini" else None
            yield {"tool_calls": [{"index": number, **_whole_call(call, index, vendor)}]}, premature
            continue
        start = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        yield {"tool_calls": [start]}, None
        for piece in call.pieces:
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, None
    yield {}, "stop" if vendor == "gemini" and script.calls else script.finish


def _logprobs(pieces: Sequence[str]) -> Json:
    content = [{"token": piece, "logprob": -0.5, "bytes": list(piece.encode()), "top_logprobs": []} for piece in pieces]
    return {"content": content, "refusal": None}


def _piece_logprobs(body: Mapping[str, Any], delta: Json) -> Json | None:
    return _logprobs([delta["content"]]) if body.get("logprobs") and delta.get("content") else None


def _extras(vendor: str) -> Json:
    if vendor != "perplexity":
        return {}
    source = {"title": "Page", "url": "https://example.com/page", "date": None, "snippet": "text", "source": "web"}
    return {"citations": ["https://example.com/page"], "search_results": [source]}


def _with_messages(events: Sequence[Json]) -> Iterator[Json]:
    """Yield Sonar's chunks, each of which also carries the message as it is by then."""
    text = ""
    for event in events:
        choice = event["choices"][0]
        text += choice["delta"].get("content") or ""
        message = {"role": "assistant", "content": text}
        yield {**event, "choices": [{**choice, "message": message}]}


def _usage_member(script: Script, vendor: str) -> Json:
    if not script.has_usage:
        return {}
    is_apart = vendor in ("xai", "gemini")
    value: Json = {
        "prompt_tokens": script.input_tokens,
        "completion_tokens": script.output_tokens - (script.reasoning_tokens if is_apart else 0),
        "total_tokens": script.input_tokens + script.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": script.cache_read_tokens,
            "cache_write_tokens": script.cache_write_tokens,
        },
    }
    if vendor != "gemini":
        value["completion_tokens_details"] = {"reasoning_tokens": script.reasoning_tokens}
    if vendor == "xai":
        value["cost_in_usd_ticks"] = int(bill_usd(script) * 10**10)
    if vendor == "perplexity":
        value["cost"] = {"total_cost": float(bill_usd(script))}
    return {"usage": value}
