"""What sets Claude models apart on the wire, as data.

Source: Anthropic's pages "What's new in Claude ..." and migration guides of Opus 4.7 to 5.5, Sonnet 5 and 5.5, Haiku
5.5 and Fable 5.1 (sampling, thinking, forced tool use); thinking and effort guides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from mlaas.providers.base import FieldError

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
"""Values of `output_config.effort`."""

_SNAPSHOT: Final = re.compile(r"-(\d{8}|latest)$")
_MIN_BUDGET_TOKENS: Final = 1024
# A budget must stay below `max_tokens`, so it is a share of it.
_BUDGET_SHARES: Final = {"low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.9, "max": 0.95}


class Thinking(StrEnum):
    """How a model is asked to think."""

    BUDGET = "budget"
    """Off, unless a budget of tokens is given."""
    ADAPTIVE = "adaptive"
    """Off, unless asked for; the effort says how much."""
    DEFAULT = "default"
    """On, unless disabled; the effort says how much."""
    BETWEEN_TOOLS = "between tools"
    """On; it can be reduced to notes between tool calls, and no further."""
    ALWAYS = "always"
    """On; it cannot be disabled."""
    UNKNOWN = "unknown"
    """Not a model of the table: what the caller asks for is sent, and the upstream knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaudeModel:
    """What a model accepts.

    Attributes:
        thinking: how it is asked to think.
        has_sampling: it takes `temperature` and `top_p` other than 1.
        has_forced_tools: it takes a `tool_choice` that forces a call.
    """

    thinking: Thinking
    has_sampling: bool = False
    has_forced_tools: bool = True


_UNKNOWN = ClaudeModel(thinking=Thinking.UNKNOWN, has_sampling=True)
_BUDGET = ClaudeModel(thinking=Thinking.BUDGET, has_sampling=True)
_NO_FORCE = ClaudeModel(thinking=Thinking.ALWAYS, has_forced_tools=False)
# By prefix, the longest first: `claude-opus-5-5` is not a `claude-opus-5`.
_MODELS: Final[tuple[tuple[str, ClaudeModel], ...]] = (
    ("claude-opus-5-5", _NO_FORCE),
    ("claude-fable-5-1", _NO_FORCE),
    ("claude-fable-5-2", _NO_FORCE),
    ("claude-mythos-5-1", _NO_FORCE),
    ("claude-mythos-5-2", _NO_FORCE),
    ("claude-sonnet-5-5", ClaudeModel(thinking=Thinking.BETWEEN_TOOLS, has_forced_tools=False)),
    ("claude-opus-5", ClaudeModel(thinking=Thinking.DEFAULT)),
    ("claude-sonnet-5", ClaudeModel(thinking=Thinking.DEFAULT)),
    ("claude-haiku-5", ClaudeModel(thinking=Thinking.DEFAULT)),
    ("claude-fable-5", ClaudeModel(thinking=Thinking.ALWAYS)),
    ("claude-mythos", ClaudeModel(thinking=Thinking.ALWAYS)),
    ("claude-opus-4-8", ClaudeModel(thinking=Thinking.ADAPTIVE)),
    ("claude-opus-4-7", ClaudeModel(thinking=Thinking.ADAPTIVE)),
    ("claude-opus-4-6", ClaudeModel(thinking=Thinking.ADAPTIVE, has_sampling=True)),
    ("claude-sonnet-4-6", ClaudeModel(thinking=Thinking.ADAPTIVE, has_sampling=True)),
    ("claude-opus-4", _BUDGET),
    ("claude-sonnet-4", _BUDGET),
    ("claude-haiku-4", _BUDGET),
    ("claude-3-7", _BUDGET),
)


def find_model(model: str) -> ClaudeModel:
    """Return what is known of a model; one that the table does not name takes everything."""
    name = _SNAPSHOT.sub("", model)
    return next((known for prefix, known in _MODELS if name.startswith(prefix)), _UNKNOWN)


def is_same_model(one: str, other: str) -> bool:
    """Return whether two names are of one model, as a name and its dated snapshot are."""
    return _SNAPSHOT.sub("", one) == _SNAPSHOT.sub("", other)


def encode_effort(name: str, effort: str, *, model: str, max_tokens: int) -> dict[str, Any]:
    """Return the fields that make a model think as much as OpenAI's `reasoning_effort` says.

    Args:
        name: the provider, for messages.
        effort: the caller's value.
        model: Anthropic's model.
        max_tokens: of the same request; a budget is a share of it.

    Raises:
        FieldError: the model has no such effort, or too few tokens for a budget.
    """
    thinking = find_model(model).thinking
    if effort == "none":
        return _encode_none(name, thinking, model)
    if effort not in EFFORTS:
        raise FieldError("reasoning_effort", f"{name} takes a 'reasoning_effort' of none, {', '.join(EFFORTS)}")
    if thinking is Thinking.BUDGET:
        if max_tokens <= _MIN_BUDGET_TOKENS:
            why = f"{model} needs 'max_tokens' over {_MIN_BUDGET_TOKENS} to reason; raise it or leave out the effort"
            raise FieldError("max_tokens", why)
        budget = max(_MIN_BUDGET_TOKENS, int(max_tokens * _BUDGET_SHARES[effort]))
        return {"thinking": {"type": "enabled", "budget_tokens": budget}}
    config = {"output_config": {"effort": effort}}
    return {"thinking": {"type": "adaptive"}, **config} if thinking is Thinking.ADAPTIVE else config


def _encode_none(name: str, thinking: Thinking, model: str) -> dict[str, Any]:
    match thinking:
        case Thinking.ALWAYS:
            raise FieldError("reasoning_effort", f"{name}: {model} always reasons; use 'low' instead of 'none'")
        case Thinking.BETWEEN_TOOLS:
            return {"thinking": {"type": "between_tools"}}
        case Thinking.BUDGET | Thinking.ADAPTIVE:
            return {}
    return {"thinking": {"type": "disabled"}}
