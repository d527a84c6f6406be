"""How a virtual model asks its members, and what all of it has used so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Protocol

import orjson

from mlaas.providers.base import Call, Operation, ProviderFailed, Usage
from mlaas.providers.failures import unreadable

# What the caller says about the answer's form or its way to him: not for a step whose answer he does not see.
_PLAIN_FIELDS = ("temperature", "top_p", "seed", "reasoning_effort", "user")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One member's answer.

    Attributes:
        fields: a whole chat completion, decoded.
        usage: what it used; None when that is not known.
        cost_usd: what it cost; None when its target has no price.
        target: who answered, `provider/model`.
    """

    fields: Mapping[str, Any]
    usage: Usage | None
    cost_usd: Decimal | None
    target: str


class Ask(Protocol):
    """Asks one model the usual way: routing, limits, failover."""

    async def __call__(self, call: Call, *, model: str) -> Asked:
        """Return the answer to a chat that is not streamed.

        Args:
            call: the chat; its own model is `model` already.
            model: an alias or `provider/model`.

        Raises:
            ProviderFailed: every attempt failed.
            MlaasError: the request is refused: no such model, a limit, a field that the target cannot honour.
        """


class Tally:
    """Asks, and adds up what that used; right at any moment, also when a call fails or is cancelled.

    Args:
        ask: who asks.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.usage = Usage()
        self.cost_usd: Decimal | None = None
        """Sum of the costs that are known; None while none is."""
        self.targets: list[str] = []

    async def ask(self, call: Call, *, model: str) -> Asked:
        """Ask one model and count what it used.

        Raises:
            ProviderFailed: every attempt failed, or the answer holds no message.
            MlaasError: the request is refused.
        """
        asked = await self._ask(call, model=model)
        self.count(asked.usage, asked.cost_usd)
        self.targets.append(asked.target)
        match asked.fields.get("choices"):
            case [{"message": dict()}, *_]:
                return asked
        raise ProviderFailed(unreadable(asked.target, "an answer without a message"))

    def count(self, usage: Usage | None, cost_usd: Decimal | None) -> None:
        """Add what an ask used; who asks calls this for one that failed and has used something all the same."""
        self.usage = _add(self.usage, usage)
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or Decimal(0)) + cost_usd


def chat(call: Call, *, model: str, messages: Sequence[Mapping[str, Any]] | None = None) -> Call:
    """Return the caller's chat for another model, not streamed, with all other fields as they are.

    Args:
        call: what the caller asks.
        model: who is asked.
        messages: in place of the caller's own.
    """
    fields = {name: value for name, value in call.fields.items() if name not in ("stream", "stream_options")}
    return _with_fields(call, {**fields, "model": model, "messages": list(messages or call.fields["messages"])})


def inner_chat(call: Call, *, model: str, messages: Sequence[Mapping[str, Any]]) -> Call:
    """Return a chat whose answer the caller does not see; it keeps the sampling of the caller's, and nothing else."""
    fields = {name: call.fields[name] for name in _PLAIN_FIELDS if name in call.fields}
    return _with_fields(call, {**fields, "model": model, "messages": list(messages)})


def question(call: Call, *, model: str, system: str, user: str) -> Call:
    """Return a chat of our own, such as a question to a judge; it keeps nothing of the caller's."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return _with_fields(call, {"model": model, "messages": messages})


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message; other parts than text are left out."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts: Iterable[Any] = content if isinstance(content, list) else ()
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def answer_of(asked: Asked) -> Mapping[str, Any]:
    """Return the message that a member answered with."""
    message: Mapping[str, Any] = asked.fields["choices"][0]["message"]
    return message


def transcript(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return who said what, as far as it is text."""
    return [{"role": str(message.get("role")), "text": text_of(message)} for message in messages]


def _with_fields(call: Call, fields: dict[str, Any]) -> Call:
    return replace(
        call,
        operation=Operation.CHAT,
        model=fields["model"],
        is_stream=False,
        fields=fields,
        body=orjson.dumps(fields),
        headers={},
    )


def _add(one: Usage, other: Usage | None) -> Usage:
    if other is None:
        return replace(one, is_estimated=True)
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        cache_read_tokens=one.cache_read_tokens + other.cache_read_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
        cache_write_1h_tokens=one.cache_write_1h_tokens + other.cache_write_1h_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        is_estimated=one.is_estimated or other.is_estimated,
    )
