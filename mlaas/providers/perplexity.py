"""Perplexity: the agent API, and the chat completions of Sonar that came before it.

Source: Perplexity's API reference; perplexity-py@3485870.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson

from mlaas.providers.base import Answer, Call, Failure, Operation, ProviderFailed, StreamDecoder, Usage, WireRequest
from mlaas.providers.chat import parse_usage
from mlaas.providers.failures import parse_failure, unreadable
from mlaas.providers.from_agent import (
    AgentChatStream,
    AgentEvents,
    complete_response,
    decode_chat,
)
from mlaas.providers.openai_compatible import OpenAICompatible
from mlaas.providers.responses_wire import ResponsesStream, parse_response, parse_response_usage
from mlaas.providers.to_agent import encode_chat, encode_response


class Perplexity:
    """Perplexity's agent API: responses in its own words, chats translated.

    Attributes:
        name: the provider's name in `provider/model`.
        base_url: URL that ends where `/agent` begins.
        operations: responses and chats.
    """

    default_url = "https://api.perplexity.ai/v1"
    operations = frozenset({Operation.CHAT, Operation.RESPONSES})

    def __init__(self, *, name: str, base_url: str, api_key: str | None) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"

    def encode_request(self, call: Call, *, model: str) -> WireRequest:
        """Return the agent request of a chat or of a response.

        Raises:
            FieldError: the agent API has nothing like a field of the request.
        """
        encode = encode_response if call.operation is Operation.RESPONSES else encode_chat
        body = orjson.dumps(encode(self.name, call, model=model))
        return WireRequest(path="/agent", headers=self._headers, body=body)

    def decode_answer(self, call: Call, body: bytes) -> Answer:
        """Return the agent's answer in the dialect of the call.

        Raises:
            ProviderFailed: the answer cannot be read, or reports a failure.
        """
        if call.operation is not Operation.RESPONSES:
            completion, usage = decode_chat(self, body)
            return Answer(body=completion, usage=usage)
        response = parse_response(self, body)
        usage = self.parse_response_usage(response.get("usage"))
        return Answer(body=orjson.dumps(complete_response(call, response)), usage=usage)

    def decode_stream(self, call: Call) -> StreamDecoder:
        """Return a decoder of the agent's events."""
        if call.operation is not Operation.RESPONSES:
            return AgentChatStream(self, call)
        return AgentResponsesStream(self, call)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return what an error answer means."""
        return parse_failure(self.name, status, headers, body)

    def parse_response_usage(self, value: object) -> Usage | None:
        """Return the usage of a response, with what Perplexity billed, searches and tools included."""
        usage = parse_response_usage(value)
        return None if usage is None else replace(usage, reported_cost_usd=_billed(value))


class AgentResponsesStream(ResponsesStream):
    """A stream of the agent's own events, completed to OpenAI's."""

    is_verbatim = False

    def __init__(self, provider: Perplexity, call: Call) -> None:
        super().__init__(provider)
        self._events = AgentEvents(call)

    def rewrite(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events that stand for one of the agent's.

        Raises:
            ProviderFailed: the event lacks what it must have.
        """
        try:
            return list(self._events.complete(value))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ProviderFailed(unreadable(self._provider.name, "an event that cannot be read")) from error


class PerplexitySonar(OpenAICompatible):
    """Sonar's chat completions as they were before the agent API; citations and search results stay as they come."""

    default_url = "https://api.perplexity.ai"
    operations = frozenset({Operation.CHAT})

    def parse_usage(self, value: object) -> Usage | None:
        """Return the usage of a chat, with what Perplexity billed.

        Deep research counts reasoning and citations beside `completion_tokens`; both are billed as output.
        Source: genai-prices, extractor `default` of perplexity.
        """
        usage = parse_usage(value)
        if usage is None or not isinstance(value, Mapping):
            return None
        reasoning, citations = (_count(value.get(field)) for field in ("reasoning_tokens", "citation_tokens"))
        return replace(
            usage,
            output_tokens=usage.output_tokens + reasoning + citations,
            reasoning_tokens=reasoning,
            reported_cost_usd=_billed(value),
        )


def _billed(value: object) -> Decimal | None:
    """Return the total of a usage's `cost`, digit by digit as it was written."""
    cost = value.get("cost") if isinstance(value, Mapping) else None
    total = cost.get("total_cost") if isinstance(cost, Mapping) else None
    return Decimal(str(total)) if isinstance(total, int | float) and not isinstance(total, bool) else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
