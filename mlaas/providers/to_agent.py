"""Chats and responses as requests of Perplexity's agent API, which answers 400 to a field that it does not know.

Source: perplexity-py@3485870, `ResponseCreateParams`, `InputItemParam` and `FunctionToolParam`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from mlaas.providers.base import Call, FieldError
from mlaas.providers.chat import refuse_unknown_fields
from mlaas.providers.past_items import carry_over

HOSTED_TOOLS: Final = frozenset({"web_search", "fetch_url", "people_search", "finance_search", "sandbox", "mcp"})
"""Tools that Perplexity runs itself."""

_EFFORTS: Final = ("minimal", "low", "medium", "high", "xhigh")
_AGENT_FIELDS: Final = frozenset({"max_steps", "language_preference", "preset"})
_CHAT_FIELDS: Final = _AGENT_FIELDS | {
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "reasoning_effort",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
}
# `models` is left out on purpose: it would go past the model that the key and the route allow.
_RESPONSE_FIELDS: Final = _AGENT_FIELDS | {
    "model",
    "input",
    "stream",
    "instructions",
    "max_output_tokens",
    "reasoning",
    "response_format",
    "text",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "metadata",
    "store",
    "truncation",
    "background",
}
_ITEM_FIELDS: Final = {
    "message": ("type", "role", "content"),
    "function_call": ("type", "call_id", "name", "arguments", "thought_signature"),
    "function_call_output": ("type", "call_id", "name", "output", "thought_signature"),
}


def encode_chat(name: str, call: Call, *, model: str) -> dict[str, Any]:
    """Return the agent request of a chat.

    Args:
        name: the provider, for messages.
        call: the chat.
        model: the provider's model.

    Raises:
        FieldError: the agent API has nothing like a field of the request; it is named.
    """
    fields = call.fields
    refuse_unknown_fields(name, fields, _CHAT_FIELDS)
    instructions, items = _encode_messages(name, fields["messages"])
    tools = [
        _encode_tool(name, tool, tool.get("function") if isinstance(tool, dict) else None, f"tools[{index}]")
        for index, tool in enumerate(fields.get("tools") or ())
    ]
    body: dict[str, Any] = {
        "model": model,
        "input": items,
        "stream": call.is_stream,
        "instructions": "\n\n".join(instructions) or None,
        "max_output_tokens": fields.get("max_completion_tokens") or fields.get("max_tokens"),
        "reasoning": _encode_effort(name, fields.get("reasoning_effort"), "reasoning_effort"),
        "response_format": _encode_format(name, fields.get("response_format"), "response_format"),
        "tools": _choose_tools(name, fields, tools),
        **{field: fields.get(field) for field in _AGENT_FIELDS},
    }
    return {field: value for field, value in body.items() if value is not None}


def encode_response(name: str, call: Call, *, model: str) -> dict[str, Any]:
    """Return the agent request of a response.

    Raises:
        FieldError: the agent API has nothing like a field of the request; it is named.
    """
    fields = call.fields
    refuse_unknown_fields(name, fields, _RESPONSE_FIELDS)
    if fields.get("truncation") == "auto":
        raise FieldError("truncation", f"{name} cannot honour 'truncation'; shorten the input")
    text = fields.get("text") or {}
    _refuse_rest(name, text, ("format",), "text")
    _refuse_rest(name, fields.get("reasoning") or {}, ("effort",), "reasoning")
    tools = [_encode_tool(name, tool, tool, f"tools[{index}]") for index, tool in enumerate(fields.get("tools") or ())]
    body: dict[str, Any] = {
        "model": model,
        "input": _encode_input(name, fields["input"]),
        "stream": call.is_stream,
        "instructions": fields.get("instructions"),
        "max_output_tokens": fields.get("max_output_tokens"),
        "reasoning": _encode_effort(name, (fields.get("reasoning") or {}).get("effort"), "reasoning.effort"),
        "response_format": fields.get("response_format") or _encode_format(name, text.get("format"), "text.format"),
        "tools": _choose_tools(name, fields, tools),
        **{field: fields.get(field) for field in _AGENT_FIELDS},
    }
    return {field: value for field, value in body.items() if value is not None}


def _encode_messages(name: str, messages: list[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    instructions: list[str] = []
    items: list[dict[str, Any]] = []
    functions: dict[str, dict[str, Any]] = {}
    for index, message in enumerate(messages):
        place, role = f"messages[{index}]", message["role"]
        if role in ("system", "developer"):
            _refuse_rest(name, message, ("role", "content"), place)
            parts = _encode_content(name, message, place, has_images=False)
            instructions += [part["text"] for part in parts]
        elif role in ("user", "assistant"):
            known = ("role", "content") if role == "user" else _ASSISTANT_FIELDS
            _refuse_rest(name, message, known, place)
            parts = _encode_content(name, message, place, has_images=role == "user")
            if message.get("refusal"):
                parts.append({"type": "input_text", "text": message["refusal"]})
            if parts:
                items.append({"type": "message", "role": role, "content": parts})
            for number, tool_call in enumerate(message.get("tool_calls") or ()):
                item = _encode_tool_call(name, tool_call, f"{place}.tool_calls[{number}]")
                functions[item["call_id"]] = item
                items.append(item)
        elif role == "tool":
            items.append(_encode_result(name, message, functions, place))
        else:
            raise FieldError(f"{place}.role", f"{name} cannot take a message of role {role[:50]!r}")
    return instructions, items


# Reasoning of earlier turns is not an input of the agent API, which keeps none.
_ASSISTANT_FIELDS: Final = (
    "role",
    "content",
    "refusal",
    "tool_calls",
    "annotations",
    "search_results",
    "reasoning_content",
    "thinking_blocks",
)


def _encode_content(name: str, message: Mapping[str, Any], place: str, *, has_images: bool) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}] if content else []
    parts: list[dict[str, Any]] = []
    for index, part in enumerate(content or ()):
        match part:
            case {"type": "text", "text": str(text)}:
                parts.append({"type": "input_text", "text": text})
            case {"type": "image_url", "image_url": {"url": str(url)}} if has_images:
                parts.append({"type": "input_image", "image_url": url})
            case _:
                kinds = "text and images" if has_images else "text"
                raise FieldError(
                    f"{place}.content[{index}]", f"{name} takes only {kinds} in '{place}.content[{index}]'"
                )
    return parts


def _encode_tool_call(name: str, tool_call: Any, place: str) -> dict[str, Any]:
    match tool_call:
        case {"type": "function", "id": str(call_id), "function": {"name": str(function), "arguments": str(arguments)}}:
            item = {"type": "function_call", "call_id": call_id, "name": function, "arguments": arguments}
        case _:
            raise FieldError(place, f"{name} takes only calls of a function with id, name and arguments in '{place}'")
    match tool_call.get("extra_content"):
        case {"google": {"thought_signature": str(signature)}}:
            item["thought_signature"] = signature
    return item


def _encode_result(
    name: str, message: Mapping[str, Any], functions: Mapping[str, Mapping[str, Any]], place: str
) -> dict[str, Any]:
    _refuse_rest(name, message, ("role", "content", "tool_call_id", "name"), place)
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str):
        raise FieldError(f"{place}.tool_call_id", f"'{place}.tool_call_id' must be a string")
    output = "".join(part["text"] for part in _encode_content(name, message, place, has_images=False))
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    asked = functions.get(call_id)
    if asked is not None:
        item.update({field: asked[field] for field in ("name", "thought_signature") if field in asked})
    return item


def _encode_input(name: str, given: Any) -> Any:
    if isinstance(given, str):
        return given
    items = [item for item in carry_over(given, reader=None) if not _is_trace(item)]
    return [_encode_item(name, item, f"input[{index}]") for index, item in enumerate(items)]


def _is_trace(item: object) -> bool:
    """Whether an item tells how an earlier answer came about, which is no input of the agent API."""
    return isinstance(item, dict) and item.get("type") in ("reasoning", "web_search_call")


def _encode_item(name: str, item: Any, place: str) -> dict[str, Any]:
    kind = item.get("type") or ("message" if "role" in item else None) if isinstance(item, dict) else None
    fields = _ITEM_FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise FieldError(place, f"{name} takes only messages, function calls and their outputs in '{place}'")
    _refuse_rest(name, item, (*fields, "id", "status", "phase", "extra_content"), place)
    encoded = {field: item[field] for field in fields if item.get(field) is not None}
    encoded["type"] = kind
    content = encoded.get("content")
    if isinstance(content, list):
        encoded["content"] = [
            _encode_part(name, part, f"{place}.content[{number}]") for number, part in enumerate(content)
        ]
    return encoded


def _encode_part(name: str, part: Any, place: str) -> dict[str, Any]:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
            return {"type": "input_text", "text": text}
        case {"type": "input_image", "image_url": str(url)}:
            return {"type": "input_image", "image_url": url}
    raise FieldError(place, f"{name} takes only text and the URLs of images in '{place}'")


def _encode_tool(name: str, tool: Any, function: Any, place: str) -> dict[str, Any]:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if isinstance(kind, str) and kind in HOSTED_TOOLS:
        return dict(tool)
    if kind != "function" or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        known = ", ".join(sorted(HOSTED_TOOLS))
        raise FieldError(place, f"{name} takes functions and {known} as tools; change '{place}'")
    kept = ("name", "description", "parameters", "strict")
    return {"type": "function", **{field: function[field] for field in kept if function.get(field) is not None}}


def _choose_tools(name: str, fields: Mapping[str, Any], tools: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    choice = fields.get("tool_choice")
    if choice not in (None, "auto", "none"):
        raise FieldError("tool_choice", f"{name} cannot honour this 'tool_choice'; use auto or none")
    if fields.get("parallel_tool_calls") is False and tools:
        raise FieldError("parallel_tool_calls", f"{name} cannot turn 'parallel_tool_calls' off; leave it out")
    return None if choice == "none" or not tools else tools


def _encode_effort(name: str, effort: object, place: str) -> dict[str, Any] | None:
    if effort is None:
        return None
    if effort not in _EFFORTS:
        raise FieldError(place, f"{name} takes a '{place}' of {', '.join(_EFFORTS)}")
    return {"effort": effort}


def _encode_format(name: str, value: Any, place: str) -> dict[str, Any] | None:
    match value:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "json_schema": dict(schema)}:
            return {"type": "json_schema", "json_schema": schema}
        case {"type": "json_schema", "schema": dict()}:
            kept = ("name", "description", "schema", "strict")
            schema = {field: value[field] for field in kept if value.get(field) is not None}
            return {"type": "json_schema", "json_schema": schema}
    raise FieldError(place, f"{name} cannot honour this '{place}'; use type 'json_schema' with a schema")


def _refuse_rest(name: str, value: Mapping[str, Any], known: Collection[str], place: str) -> None:
    for field, each in value.items():
        if field not in known and each:
            raise FieldError(f"{place}.{field}", f"{name} cannot honour '{place}.{field}'")
