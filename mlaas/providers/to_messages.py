"""A chat completions request as a request of Anthropic's Messages API.

Source: OpenAI API reference, chat completions; Anthropic API reference, messages; types of both Python SDKs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from mlaas.providers.base import FieldError
from mlaas.providers.chat import refuse_unknown_fields

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
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "user",
    }
)
_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
_DATA_URL = re.compile(r"data:(image/[a-z+.-]+);base64,(.*)", re.DOTALL)


def encode_messages_request(name: str, fields: Mapping[str, Any], *, model: str) -> dict[str, Any]:
    """Return the body of a Messages request.

    Args:
        name: the provider, for messages.
        fields: a chat completions request.
        model: the provider's model.

    Raises:
        FieldError: a field has nothing like it there; it is named.
    """
    refuse_unknown_fields(name, fields, _FIELDS)
    system, messages = _split_messages(name, fields["messages"])
    max_tokens = fields.get("max_completion_tokens") or fields.get("max_tokens") or DEFAULT_MAX_TOKENS
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "messages": messages}
    if system:
        body["system"] = system
    if fields.get("stream"):
        body["stream"] = True
    _set_sampling(name, fields, body)
    _set_tools(name, fields, body)
    config = _output_config(name, fields)
    if config:
        body["output_config"] = config
    if fields.get("user"):
        body["metadata"] = {"user_id": fields["user"]}
    return body


def _set_sampling(name: str, fields: Mapping[str, Any], body: dict[str, Any]) -> None:
    temperature = fields.get("temperature")
    if temperature is not None:
        if not 0 <= temperature <= 1:
            raise FieldError("temperature", f"{name} takes a 'temperature' from 0 to 1, not {temperature}")
        body["temperature"] = temperature
    if fields.get("top_p") is not None:
        body["top_p"] = fields["top_p"]
    stop = fields.get("stop")
    if stop:
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop


def _set_tools(name: str, fields: Mapping[str, Any], body: dict[str, Any]) -> None:
    tools = fields.get("tools")
    if not tools:
        return
    body["tools"] = [_encode_tool(name, tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    choice = _encode_tool_choice(name, fields.get("tool_choice"))
    if fields.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    if choice:
        body["tool_choice"] = choice


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


def _output_config(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    match fields.get("response_format"):
        case None | {"type": "text"}:
            pass
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            config["format"] = {"type": "json_schema", "schema": schema}
        case _:
            why = f"{name} cannot honour this 'response_format'; use type 'json_schema' with a schema"
            raise FieldError("response_format", why)
    effort = fields.get("reasoning_effort")
    if effort is not None:
        if effort not in _EFFORTS:
            raise FieldError("reasoning_effort", f"{name} takes a 'reasoning_effort' of {', '.join(_EFFORTS)}")
        config["effort"] = effort
    return config


def _split_messages(name: str, messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """Return the system prompt and the turns; neighbours of one role become one turn."""
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        role = message["role"]
        if role in ("system", "developer"):
            _refuse_extras(name, message, place, ("role", "content"))
            system += [block["text"] for block in _encode_content(name, message, place, has_images=False)]
            continue
        if role == "user":
            _refuse_extras(name, message, place, ("role", "content"))
            blocks = _encode_content(name, message, place, has_images=True)
        elif role == "assistant":
            blocks = _encode_assistant(name, message, place)
        elif role == "tool":
            blocks = [_encode_tool_result(name, message, place)]
        else:
            raise FieldError(f"{place}.role", f"{name} cannot take a message of role {role[:50]!r}")
        role = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return "\n\n".join(system), turns


def _encode_assistant(name: str, message: dict[str, Any], place: str) -> list[dict[str, Any]]:
    known = ("role", "content", "tool_calls", "refusal", "annotations", "reasoning_content")
    _refuse_extras(name, message, place, known)
    blocks = _encode_content(name, message, place, has_images=False)
    if message.get("refusal"):
        blocks.append({"type": "text", "text": message["refusal"]})
    for index, call in enumerate(message.get("tool_calls") or ()):
        where = f"{place}.tool_calls[{index}]"
        match call:
            case {"type": "function", "id": str(call_id), "function": {"name": str(function), "arguments": str(text)}}:
                blocks.append({"type": "tool_use", "id": call_id, "name": function, "input": _parse_input(text, where)})
            case _:
                raise FieldError(where, f"'{where}' is not a call of a function with id, name and arguments")
    return blocks


def _parse_input(text: str, place: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise FieldError(
            f"{place}.function.arguments", f"'{place}.function.arguments' must be a JSON object in a string"
        )
    return value


def _encode_tool_result(name: str, message: dict[str, Any], place: str) -> dict[str, Any]:
    _refuse_extras(name, message, place, ("role", "content", "tool_call_id"))
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str):
        raise FieldError(f"{place}.tool_call_id", f"'{place}.tool_call_id' must name the call that this answers")
    content = _encode_content(name, message, place, has_images=True)
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


def _encode_content(name: str, message: dict[str, Any], place: str, *, has_images: bool) -> list[dict[str, Any]]:
    """Return content blocks; an empty text, which the Messages API refuses, is no block."""
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks: list[dict[str, Any]] = []
    for index, part in enumerate(content or ()):
        where = f"{place}.content[{index}]"
        match part:
            case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
                if text:
                    blocks.append({"type": "text", "text": text})
            case {"type": "image_url", "image_url": {"url": str(url)}} if has_images:
                blocks.append({"type": "image", "source": _encode_image(name, url, where)})
            case _:
                raise FieldError(where, f"{name} cannot take '{where}' in a message of role {message['role']!r}")
    return blocks


def _encode_image(name: str, url: str, place: str) -> dict[str, Any]:
    inline = _DATA_URL.fullmatch(url)
    if inline is not None:
        return {"type": "base64", "media_type": inline[1], "data": inline[2]}
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    raise FieldError(place, f"{name} takes an image as an http URL or a base64 data URL in '{place}'")


def _refuse_extras(name: str, message: dict[str, Any], place: str, known: tuple[str, ...]) -> None:
    for field, value in message.items():
        if field not in known and value not in (None, [], {}):
            raise FieldError(f"{place}.{field}", f"{name} cannot honour '{place}.{field}'; leave it out")
