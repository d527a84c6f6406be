"""A small server that speaks each provider's wire format, with the fault that the model's name asks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

WORDS = ["def", " add", "(a, b)", ":", " return", " a + b"]
TEXT = "".join(WORDS)
USAGE = (7, 5)
STALL_S = 30.0


@dataclass
class Upstream:
    """What the server has seen.

    Attributes:
        error_shape: turns status and message into the error body of the dialect.
        requests: decoded bodies, in order.
        bodies: raw bodies, in order.
        headers: request headers, in order.
        num_active: requests under way.
        num_cancelled: requests whose caller left before the answer was complete.
    """

    error_shape: Callable[[int, str], Any] = lambda status, message: {
        "error": {"message": message, "type": "test_error", "param": None, "code": f"code_{status}"}
    }
    requests: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    num_active: int = 0
    num_cancelled: int = 0

    def app(self) -> web.Application:
        """Return the server's application; each dialect has its own path."""
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_post("/v1/chat/completions", self._handler(chat_answer, chat_events))
        app.router.add_post("/v1/completions", self._handler(completion_answer, completion_events))
        app.router.add_post("/v1/messages", self._handler(message_answer, message_events))
        app.router.add_post("/v1/agent", self._handler(agent_answer, agent_events))
        return app

    def _handler(self, answer: Any, events: Any) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            raw = await request.read()
            body = json.loads(raw)
            self.bodies.append(raw)
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            self.num_active += 1
            try:
                return await self._answer(request, body, answer, events)
            except (asyncio.CancelledError, ConnectionError):
                self.num_cancelled += 1
                raise
            finally:
                self.num_active -= 1

        return handle

    async def _answer(self, request: web.Request, body: dict[str, Any], answer: Any, events: Any) -> web.StreamResponse:
        fault = body["model"]
        if fault.startswith("status-"):
            status = int(fault.removeprefix("status-"))
            headers = {"retry-after": "7"} if status in (429, 529) else {}
            return web.json_response(self.error_shape(status, f"told to say {status}"), status=status, headers=headers)
        if fault == "disconnect":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "busy":
            await asyncio.sleep(0.05)
        if fault == "slow-first-byte":
            await asyncio.sleep(STALL_S)
        if fault == "malformed":
            return web.Response(text='{"id": "x", "choices": [', content_type="application/json")
        if not body.get("stream"):
            return web.json_response(answer(body))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await self._stream(request, response, fault, [event.encode() for event in events(body)])
        return response

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, fault: str, pieces: list[bytes]
    ) -> None:
        assert request.transport is not None
        for index, piece in enumerate(pieces):
            if index == len(pieces) // 2 and fault.startswith("stream-"):
                match fault:
                    case "stream-stall":
                        await asyncio.sleep(STALL_S)
                    case "stream-cut":
                        await response.write(piece[: len(piece) // 2])
                        await asyncio.sleep(0.05)
                        request.transport.abort()
                        return
                    case "stream-short":
                        return
                    case "stream-endless":
                        while True:
                            await response.write(piece)
                            await asyncio.sleep(0.01)
            await response.write(piece)


def event(value: Any, name: str | None = None) -> str:
    """Return one server-sent event."""
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(value)}\n\n"


def _openai_usage() -> dict[str, int]:
    return {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}


def chat_answer(body: dict[str, Any]) -> dict[str, Any]:
    """OpenAI chat completion."""
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
    return {**head, "choices": [choice], "usage": _openai_usage()}


def chat_events(body: dict[str, Any]) -> list[str]:
    """OpenAI chat completion chunks."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS)]
    events = [event({**head, "choices": [{"index": 0, "delta": each, "finish_reason": None}]}) for each in deltas]
    events.append(event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(event({**head, "choices": [], "usage": _openai_usage()}))
    return [*events, "data: [DONE]\n\n"]


def completion_answer(body: dict[str, Any]) -> dict[str, Any]:
    """OpenAI completion."""
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
    choice = {"index": 0, "text": TEXT, "finish_reason": "stop", "logprobs": None}
    return {**head, "choices": [choice], "usage": _openai_usage()}


def completion_events(body: dict[str, Any]) -> list[str]:
    """OpenAI completion chunks."""
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
    choices = [{"index": 0, "text": word, "finish_reason": None, "logprobs": None} for word in WORDS]
    return [*(event({**head, "choices": [choice]}) for choice in choices), "data: [DONE]\n\n"]


def message_answer(body: dict[str, Any]) -> dict[str, Any]:
    """Anthropic message; part of its prompt came from the cache."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_read_input_tokens": 2,
            "cache_creation_input_tokens": 1,
            "output_tokens": USAGE[1],
        },
    }


def message_events(body: dict[str, Any]) -> list[str]:
    """Anthropic stream."""
    start = {**message_answer(body), "content": [], "stop_reason": None}
    start["usage"] = {**start["usage"], "output_tokens": 1}
    values: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": USAGE[1]}},
        {"type": "message_stop"},
    ]
    return [event(value, value["type"]) for value in values]


def _agent_usage() -> dict[str, Any]:
    cost = {"currency": "USD", "input_cost": 0.1, "output_cost": 0.2, "total_cost": 0.3}
    return {"input_tokens": USAGE[0], "output_tokens": USAGE[1], "total_tokens": sum(USAGE), "cost": cost}


def agent_answer(body: dict[str, Any]) -> dict[str, Any]:
    """Perplexity agent response; its search results come before the message."""
    part = {"type": "output_text", "text": TEXT, "annotations": []}
    message = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": "completed",
        "output": [{"type": "search_results", "results": [], "queries": ["q"]}, message],
        "usage": _agent_usage(),
    }


def agent_events(body: dict[str, Any]) -> list[str]:
    """Perplexity agent stream."""
    whole = agent_answer(body)
    values: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**whole, "output": [], "status": "in_progress", "usage": None}},
        {"type": "response.reasoning.search_queries", "queries": ["q"]},
        *({"type": "response.output_text.delta", "delta": word, "item_id": "m"} for word in WORDS),
        {"type": "response.output_text.done", "text": TEXT},
        {"type": "response.completed", "response": whole},
    ]
    return [event({**value, "sequence_number": index}, value["type"]) for index, value in enumerate(values)]
