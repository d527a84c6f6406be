"""A chat completions request as a request of Anthropic's Messages API.

Source: OpenAI API reference, chat completions; Anthropic API reference, messages; types of both Python SDKs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mlaas.providers.base import FieldError
from mlaas.providers.chat import refuse_unknown_fields
from mlaas.providers.claude_models import encode_effort, find_model
from mlaas.providers.to_messages_content import split_messages

DEFAULT_MAX_TOKENS: Final = 8192
"""The Messages API requires `max_tokens`, OpenAI's does not. Every current Claude can write as many."""

_FIELDS: Final = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "service_tier",
        "safety_identifier",
        "user",
    }
)
_SAMPLING: Final = ("temperature", "top_p", "top_k")
_TIERS: Final = {"auto": "auto", "default": "standard_only"}


def encode_messages_request(name: str, fields: Mapping[str, Any], *, model: str) -> dict[str, Any]:
    """Return the body of a Messages request.

    Text parts, images and tools may carry Anthropic's `cache_control`. Reasoning of other models is left out: an
    assistant's `reasoning_content` has no place in the Messages API, and `thinking_blocks` only go to their model.

    Args:
        name: the provider, for messages.
        fields: a chat completions request.
        model: the provider's model.

    Raises:
        FieldError: a field has nothing like it there; it is named.
    """
    refuse_unknown_fields(name, fields, _FIELDS)
    system, messages = split_messages(name, fields["messages"], model=model)
    body: dict[str, Any] = {"model": model, "max_tokens": _max_tokens(fields), "messages": messages}
    if system:
        is_plain = len(system) == 1 and "cache_control" not in system[0]
        body["system"] = system[0]["text"] if is_plain else system
    if fields.get("stream"):
        body["stream"] = True
    _set_output(name, fields, body)
    _set_tools(name, fields, body)
    _set_sampling(name, fields, body)
    user = fields.get("safety_identifier") or fields.get("user")
    if user:
        body["metadata"] = {"user_id": user}
    return body


def _max_tokens(fields: Mapping[str, Any]) -> int:
    for field in ("max_completion_tokens", "max_tokens"):
        if fields.get(field) is not None:
            return int(fields[field])
    return DEFAULT_MAX_TOKENS


def _set_sampling(name: str, fields: Mapping[str, Any], body: dict[str, Any]) -> None:
    """Set what shapes each token; goes last, because a model that thinks takes no temperature."""
    model = body["model"]
    thinks = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    for field in _SAMPLING:
        value = fields.get(field)
        if value is None or (value == 1 and field != "top_k"):
            continue
        if not find_model(model).has_sampling:
            raise FieldError(field, f"{name}: {model} does not take {field!r}; leave it out")
        if thinks and field != "top_p":
            raise FieldError(field, f"{name}: {model} does not take {field!r} while it reasons; leave it out")
        if field == "temperature" and not 0 <= value <= 1:
            raise FieldError(field, f"{name} takes a 'temperature' from 0 to 1, not {value}")
        body[field] = value
    stop = fields.get("stop")
    if stop:
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    tier = fields.get("service_tier")
    if tier is not None:
        if tier not in _TIERS:
            raise FieldError("service_tier", f"{name} takes a 'service_tier' of auto or default")
        body["service_tier"] = _TIERS[tier]


def _set_tools(name: str, fields: Mapping[str, Any], body: dict[str, Any]) -> None:
    tools = fields.get("tools")
    choice = _encode_tool_choice(name, fields.get("tool_choice"))
    is_forced = choice.get("type") in ("any", "tool")
    if not tools:
        if is_forced:
            raise FieldError("tool_choice", "'tool_choice' asks for a tool, but there are no 'tools'")
        return
    body["tools"] = [_encode_tool(name, tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    if is_forced:
        _check_forced(name, body)
    if fields.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    if choice:
        body["tool_choice"] = choice


def _check_forced(name: str, body: Mapping[str, Any]) -> None:
    model = body["model"]
    if not find_model(model).has_forced_tools:
        raise FieldError("tool_choice", f"{name}: {model} cannot be forced to call a tool; use 'auto' or 'none'")
    if body.get("thinking", {}).get("type") == "enabled":
        why = f"{name}: {model} cannot be forced to call a tool while it reasons; leave out 'reasoning_effort'"
        raise FieldError("tool_choice", why)


def _encode_tool(name: str, tool: Any, place: str) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise FieldError(place, f"{name} takes only tools of type 'function'; change '{place}'")
    encoded: dict[str, Any] = {
        "name": function["name"],
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if function.get("description"):
        encoded["description"] = function["description"]
    if function.get("strict"):
        encoded["strict"] = True
    if tool.get("cache_control"):
        encoded["cache_control"] = tool["cache_control"]
    return encoded


def _encode_tool_choice(name: str, choice: Any) -> dict[str, Any]:
    match choice:
        case None:
            return {}
        case "auto" | "none":
            return {"type": choice}
        case "required":
            return {"type": "any"}
        case {"type": "function", "function": {"name": str(function)}}:
            return {"type": "tool", "name": function}
    raise FieldError("tool_choice", f"{name} cannot honour this 'tool_choice'; use auto, none, required or a function")


def _set_output(name: str, fields: Mapping[str, Any], body: dict[str, Any]) -> None:
    effort = fields.get("reasoning_effort")
    if effort is not None:
        body.update(encode_effort(name, effort, model=body["model"], max_tokens=body["max_tokens"]))
    match fields.get("response_format"):
        case None | {"type": "text"}:
            pass
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            form = {"type": "json_schema", "schema": schema}
            body["output_config"] = {**body.get("output_config", {}), "format": form}
        case _:
            why = f"{name} cannot honour this 'response_format'; use type 'json_schema' with a schema"
            raise FieldError("response_format", why)
