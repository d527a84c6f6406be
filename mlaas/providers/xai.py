"""xAI: responses and chats. Its errors are `{"code": "...", "error": "..."}`. Source: docs.x.ai."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from mlaas.providers.base import Call, FieldError, Operation, Usage, WireRequest
from mlaas.providers.chat import parse_usage
from mlaas.providers.responses_wire import ResponsesCompatible, parse_response_usage

TICKS_PER_USD: Final = Decimal(10_000_000_000)
"""Source: docs.x.ai, `usage.cost_in_usd_ticks`."""

# Longest prefix first. Source: docs.x.ai, reasoning; models that are not here decide for themselves.
_EFFORTS: Final = {
    "grok-4.7": ("low", "medium", "high", "xhigh"),
    "grok-4.6": ("low", "medium", "high", "xhigh"),
    "grok-4.5": ("low", "medium", "high"),
    "grok-4.3": ("none", "low", "medium", "high"),
}
_REASONS = re.compile(r"grok-(?:4|build|code|3-mini)(?!.*non-reasoning)")
_NOT_WHILE_REASONING: Final = ("presence_penalty", "frequency_penalty", "stop")


class XAI(ResponsesCompatible):
    """xAI's API. Its reasoning models refuse penalties and stop sequences."""

    default_url = "https://api.x.ai/v1"
    operations = frozenset({Operation.CHAT, Operation.RESPONSES})

    def encode_request(self, call: Call, *, model: str) -> WireRequest:
        """Return the caller's own bytes, asking for `model`.

        Raises:
            FieldError: the model takes no such field, or no such reasoning effort.
        """
        field, effort = _effort_of(call)
        accepted = next((efforts for prefix, efforts in _EFFORTS.items() if model.startswith(prefix)), None)
        if effort is not None and accepted is not None and effort not in accepted:
            raise FieldError(field, f"{self.name}/{model} takes a '{field}' of {', '.join(accepted)}")
        if _REASONS.match(model) and effort != "none":
            for name in _NOT_WHILE_REASONING:
                if call.fields.get(name):
                    raise FieldError(name, f"{self.name}/{model} reasons and cannot honour {name!r}; leave it out")
        return super().encode_request(call, model=model)

    def parse_usage(self, value: object) -> Usage | None:
        """Return the usage of a chat, its reasoning counted as output, and what xAI billed.

        Unlike OpenAI's, `completion_tokens` leaves the reasoning out. `total_tokens` tells, should that change.
        Source: genai-prices, extractor `chat` of x-ai.
        """
        usage = parse_usage(value)
        if usage is None or not isinstance(value, Mapping):
            return None
        details = value.get("completion_tokens_details")
        reasoning = details.get("reasoning_tokens") if isinstance(details, Mapping) else None
        total = value.get("total_tokens")
        if isinstance(reasoning, int) and reasoning > 0 and total != usage.total_tokens:
            usage = replace(usage, output_tokens=usage.output_tokens + reasoning, reasoning_tokens=reasoning)
        return replace(usage, reported_cost_usd=_billed(value))

    def parse_response_usage(self, value: object) -> Usage | None:
        """Return the usage of a response, with what xAI billed. Here `output_tokens` includes the reasoning."""
        usage = parse_response_usage(value)
        if usage is None or not isinstance(value, Mapping):
            return None
        return replace(usage, reported_cost_usd=_billed(value))


def _effort_of(call: Call) -> tuple[str, Any]:
    if call.operation is Operation.RESPONSES:
        return "reasoning.effort", (call.fields.get("reasoning") or {}).get("effort")
    return "reasoning_effort", call.fields.get("reasoning_effort")


def _billed(value: Mapping[str, Any]) -> Decimal | None:
    ticks = value.get("cost_in_usd_ticks")
    return Decimal(ticks) / TICKS_PER_USD if isinstance(ticks, int) and not isinstance(ticks, bool) else None
