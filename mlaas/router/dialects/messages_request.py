"""A request of Anthropic's Messages API as a chat.

What has no counterpart in a chat is refused by name. Left out without a word are only hints that cannot change an
answer: `cache_control` (other providers cache by themselves) and `eager_input_streaming`. A tool result that is an
error says so in a first text part, for a chat has no field for it. `top_k` goes along as vLLM's own field; who does not
know it refuses it.

Source: Anthropic API reference, messages; OpenAI API reference, chat completions; types of both Python SDKs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, FieldError, Operation
from mlaas.providers.thinking import is_thinking, is_unsigned
from mlaas.providers.to_messages_content import TOOL_ERROR

# Same name and meaning on both sides.
_KEPT: Final = ("model", "temperature", "top_p", "top_k")
_RENAMED: Final = {"max_tokens": "max_completion_tokens", "stop_sequences": "stop"}
_TRANSLATED: Final = (
    "messages",
    "system",
    "stream",
    "tools",
    "tool_choice",
    "output_config",
    "thinking",
    "metadata",
    "service_tier",
)
_HINTS: Final = ("cache_control", "eager_input_streaming")
_NEUTRAL: Final[dict[str, tuple[object, ...]]] = {
    "speed": ("standard",),
    "defer_loading": (False,),
    "allowed_callers": (["direct"], []),
    "input_examples": ([],),
    "type": ("custom",),
    "citations": ([], {"enabled": False}),
    "caller": ({"type": "direct"},),
}
_TIERS: Final = {"auto": "auto", "standard_only": "default"}
# A budget of thinking as an effort: the first row that is large enough.
_EFFORT_OF_BUDGET: Final = ((4096, "low"), (16384, "medium"))

Message = dict[str, Any]


def encode_chat(call: Call) -> Call:
    """Return a Messages request as a chat that asks for its usage.

    Raises:
        FieldError: a chat cannot say what a field asks for; it is named.
    """
    fields = call.fields
    _refuse_extras(fields, "", (*_KEPT, *_RENAMED, *_TRANSLATED))
    chat = {name: fields[name] for name in _KEPT if fields.get(name) is not None}
    chat.update({name: fields[old] for old, name in _RENAMED.items() if fields.get(old)})
    if fields.get("max_tokens") == 0:
        raise FieldError("max_tokens", "only Anthropic's models take a 'max_tokens' of 0; give the answer at least 1")
    chat["messages"] = [*_encode_system(fields.get("system"), "system"), *_encode_messages(fields["messages"])]
    if call.is_stream:
        chat["stream"] = True
        chat["stream_options"] = {"include_usage": True}
    if fields.get("tools"):
        chat["tools"] = [_encode_tool(tool, f"tools[{index}]") for index, tool in enumerate(fields["tools"])]
    _set_tool_choice(fields.get("tool_choice"), chat)
    _set_output(fields, chat)
    user = (fields.get("metadata") or {}).get("user_id")
    if user:
        chat["user"] = user
    tier = fields.get("service_tier")
    if tier is not None:
        if tier not in _TIERS:
            raise FieldError("service_tier", "'service_tier' must be auto or standard_only")
        chat["service_tier"] = _TIERS[tier]
    return Call(
        operation=Operation.CHAT,
        model=call.model,
        is_stream=call.is_stream,
        fields=chat,
        body=orjson.dumps(chat),
        headers=call.headers,
    )


def _encode_system(system: Any, place: str) -> list[Message]:
    if not system:
        return []
    content = system if isinstance(system, str) else _encode_parts(system, place, has_images=False)
    return [{"role": "system", "content": content}]


def _encode_messages(messages: list[Any]) -> list[Message]:
    chat: list[Message] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        _refuse_extras(message, f"{place}.", ("role", "content"))
        content = message["content"]
        match message["role"]:
            case "system":
                chat += _encode_system(content, f"{place}.content")
            case "user":
                chat += _encode_user(content, f"{place}.content")
            case "assistant":
                chat.append(_encode_assistant(content, f"{place}.content"))
            case _:
                raise FieldError(f"{place}.role", f"'{place}.role' must be user, assistant or system")
    if chat and chat[-1]["role"] == "assistant":
        last = f"messages[{len(messages) - 1}]"
        raise FieldError(
            last, f"only Anthropic's older models continue an assistant's message; '{last}' must not be one"
        )
    return chat


def _encode_user(content: Any, place: str) -> list[Message]:
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results: list[Message] = []
    rest: list[Any] = []
    parts: list[Message] = []
    for index, block in enumerate(content):
        where = f"{place}[{index}]"
        if isinstance(block, dict) and block.get("type") == "tool_result":
            results.append(_encode_tool_result(block, where))
        else:
            rest.append(block)
            parts.append(_encode_part(block, where, has_images=True))
    return [*results, {"role": "user", "content": _simplify(parts)}] if rest or not results else results


def _encode_tool_result(block: Mapping[str, Any], place: str) -> Message:
    _refuse_extras(block, f"{place}.", ("type", "tool_use_id", "content", "is_error"))
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str):
        raise FieldError(f"{place}.tool_use_id", f"'{place}.tool_use_id' must name the call that this answers")
    content = block.get("content") or ""
    if not isinstance(content, str):
        content = _encode_parts(content, f"{place}.content", has_images=True)
    if block.get("is_error"):
        told = [{"type": "text", "text": content}] if isinstance(content, str) else content
        content = [{"type": "text", "text": TOOL_ERROR}, *told]
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def _encode_assistant(content: Any, place: str) -> Message:
    message: Message = {"role": "assistant", "content": content}
    if isinstance(content, str):
        return message
    parts, calls, thinking = [], [], []
    for index, block in enumerate(content):
        where = f"{place}[{index}]"
        if is_thinking(block):
            thinking.append(block)
        elif isinstance(block, dict) and block.get("type") == "tool_use":
            calls.append(_encode_tool_use(block, where))
        else:
            parts.append(_encode_part(_without_citations(block), where, has_images=False))
    message["content"] = _simplify(parts) if parts or not calls else None
    if calls:
        message["tool_calls"] = calls
    text = "".join(str(block.get("thinking") or "") for block in thinking)
    if text:
        message["reasoning_content"] = text
    signed = [block for block in thinking if not is_unsigned(block)]
    if signed:
        message["thinking_blocks"] = signed
    return message


def _without_citations(block: Any) -> Any:
    """Return a block of what a model has said; which sources it named to its reader is not part of that."""
    if isinstance(block, dict) and block.get("type") == "text":
        return {name: value for name, value in block.items() if name != "citations"}
    return block


def _encode_tool_use(block: Mapping[str, Any], place: str) -> Message:
    _refuse_extras(block, f"{place}.", ("type", "id", "name", "input", "extra_content"))
    match block:
        case {"id": str(call_id), "name": str(name), "input": dict(value)}:
            function = {"name": name, "arguments": orjson.dumps(value).decode()}
            call = {"id": call_id, "type": "function", "function": function}
            return {**call, "extra_content": block["extra_content"]} if block.get("extra_content") else call
    raise FieldError(place, f"'{place}' must have an 'id', a 'name' and an 'input' that is an object")


def _encode_parts(blocks: Any, place: str, *, has_images: bool) -> str | list[Message]:
    if not isinstance(blocks, list):
        raise FieldError(place, f"'{place}' must be a string or an array of blocks")
    return _simplify([_encode_part(block, f"{place}[{at}]", has_images=has_images) for at, block in enumerate(blocks)])


def _simplify(parts: list[Message]) -> str | list[Message]:
    """Return one text as a string, which every upstream takes; some take no array of parts."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts or ""


def _encode_part(block: Any, place: str, *, has_images: bool) -> Message:
    match block:
        case {"type": "text", "text": str(text)}:
            _refuse_extras(block, f"{place}.", ("type", "text"))
            return {"type": "text", "text": text}
        case {"type": "image", "source": source} if has_images:
            _refuse_extras(block, f"{place}.", ("type", "source"))
            return {"type": "image_url", "image_url": {"url": _image_url(source, place)}}
    kind = block.get("type") if isinstance(block, dict) else None
    raise FieldError(place, f"only Anthropic's models take '{place}', a block of type {str(kind)[:50]!r}, there")


def _image_url(source: Any, place: str) -> str:
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(data)}:
            return f"data:{kind};base64,{data}"
        case {"type": "url", "url": str(url)}:
            return url
    raise FieldError(f"{place}.source", f"'{place}.source' must be of type base64 or url")


def _encode_tool(tool: Any, place: str) -> Message:
    if not isinstance(tool, dict) or tool.get("type") not in (None, "custom"):
        raise FieldError(place, f"only Anthropic's models have the tool in '{place}'; use one with an 'input_schema'")
    _refuse_extras(tool, f"{place}.", ("name", "description", "input_schema", "strict"))
    if not isinstance(tool.get("name"), str) or not isinstance(tool.get("input_schema"), dict):
        raise FieldError(place, f"'{place}' must have a 'name' and an 'input_schema'")
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    for field in ("description", "strict"):
        if tool.get(field):
            function[field] = tool[field]
    return {"type": "function", "function": function}


def _set_tool_choice(choice: Any, chat: dict[str, Any]) -> None:
    match choice:
        case None:
            return
        case {"type": "auto" | "none"} if not chat.get("tools"):
            return
        case {"type": "auto" | "none" as kind}:
            chat["tool_choice"] = kind
        case {"type": "any" | "tool"} if not chat.get("tools"):
            raise FieldError("tool_choice", "'tool_choice' asks for a tool, but there are no 'tools'")
        case {"type": "any"}:
            chat["tool_choice"] = "required"
        case {"type": "tool", "name": str(name)}:
            chat["tool_choice"] = {"type": "function", "function": {"name": name}}
        case _:
            raise FieldError("tool_choice", "'tool_choice' must be of type auto, any, none, or tool with a name")
    if choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False


def _set_output(fields: Mapping[str, Any], chat: dict[str, Any]) -> None:
    config = fields.get("output_config") or {}
    _refuse_extras(config, "output_config.", ("effort", "format"))
    effort = config.get("effort") or _effort_of(fields.get("thinking"))
    if effort:
        chat["reasoning_effort"] = effort
    match config.get("format"):
        case None:
            pass
        case {"type": "json_schema", "schema": dict(schema)}:
            form = {"name": "answer", "schema": schema, "strict": True}
            chat["response_format"] = {"type": "json_schema", "json_schema": form}
        case _:
            raise FieldError("output_config.format", "'output_config.format' must be of type json_schema with a schema")


def _effort_of(thinking: Any) -> str | None:
    """Return the effort that a thinking configuration asks for; None leaves it to the model, as `adaptive` does."""
    match thinking:
        case None | {"type": "adaptive"}:
            return None
        case {"type": "disabled" | "between_tools"}:
            return "none"
        case {"type": "enabled", "budget_tokens": int(budget)}:
            return next((effort for most, effort in _EFFORT_OF_BUDGET if budget <= most), "high")
    raise FieldError(
        "thinking", "'thinking' must be of type adaptive, disabled, between_tools, or enabled with a budget"
    )


def _refuse_extras(value: Mapping[str, Any], place: str, known: tuple[str, ...]) -> None:
    for field, each in value.items():
        if field in known or field in _HINTS or each is None or each in _NEUTRAL.get(field, ()):
            continue
        raise FieldError(f"{place}{field}", f"only Anthropic's models take '{place}{field}'; leave it out")
