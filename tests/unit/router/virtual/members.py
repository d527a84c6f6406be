"""Models that answer as a test says."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import orjson

from mlaas.errors import MlaasError
from mlaas.providers.base import Call, Failure, FailureKind, Operation, ProviderFailed, Usage
from mlaas.router.virtual.asking import Asked

COSTS = {"free": None}


def failure(code: str = "upstream_error") -> ProviderFailed:
    return ProviderFailed(Failure(kind=FailureKind.FAILED, status=502, code=code, message="down"))


def chat_call(text: str = "What is 2+2?", **fields: Any) -> Call:
    fields = {"model": "virtual", "messages": [{"role": "user", "content": text}], **fields}
    body = orjson.dumps(fields)
    is_stream = bool(fields.get("stream"))
    return Call(operation=Operation.CHAT, model="virtual", is_stream=is_stream, fields=fields, body=body)


class Members:
    """An `Ask` over fixed replies: a text, a message, a whole completion, an error, or a list of these, one a turn.

    Each ask costs a dollar, but for the model `free`, whose cost is not known, and uses 10 tokens in and 5 out.
    """

    def __init__(self, **replies: Any) -> None:
        self._replies = replies
        self.calls: list[Call] = []
        self.num_at_once = 0
        self.most_at_once = 0

    async def __call__(self, call: Call, *, model: str) -> Asked:
        assert (call.model, call.is_stream, call.fields["model"]) == (model, False, model)
        assert orjson.loads(call.body) == call.fields
        self.calls.append(call)
        self.num_at_once += 1
        self.most_at_once = max(self.most_at_once, self.num_at_once)
        await asyncio.sleep(0)
        self.num_at_once -= 1
        reply = self._replies[model]
        if isinstance(reply, list):
            reply = reply.pop(0)
        if isinstance(reply, ProviderFailed | MlaasError):
            raise reply
        usage = Usage(input_tokens=10, output_tokens=5)
        return Asked(fields=_completion(reply), usage=usage, cost_usd=COSTS.get(model, Decimal(1)), target=f"p/{model}")

    def asked(self) -> list[str]:
        return [call.model for call in self.calls]


def tool_message(name: str, arguments: str) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _completion(reply: Any) -> dict[str, Any]:
    if isinstance(reply, str):
        reply = {"role": "assistant", "content": reply}
    if "choices" in reply or "role" not in reply:
        return reply
    choice = {"index": 0, "message": reply, "finish_reason": "stop", "logprobs": None}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice]}
