"""A request of the Responses API as a chat.

The items of the input become messages: what the model said in one go (reasoning, text, function calls) is one
assistant's message again.

Source: OpenAI API reference, responses and chat completions; openai-python, `ResponseCreateParams`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from mlaas.providers.base import Call, FieldError, Operation
from mlaas.router.dialects.responses_items import read_items

_SAME: Final = ("temperature", "top_p", "top_logprobs", "prompt_cache_key", "prompt_cache_retention", "service_tier")
# What these ask for happens without the model, or is what happens anyway.
_OURS: Final = frozenset({"metadata", "store", "background", "max_tool_calls"})
_READ: Final = frozenset(
    {
        "model",
        "input",
        "stream",
        "stream_options",
        "instructions",
        "max_output_tokens",
        "include",
        "reasoning",
        "text",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "truncation",
        "user",
        "safety_identifier",
        *_SAME,
        *_OURS,
    }
)
_LOGPROBS: Final = "message.output_text.logprobs"
_INCLUDABLE: Final = ("reasoning.encrypted_content", _LOGPROBS)
_DEFAULT_TIERS: Final = (None, "auto", "default")


def encode_chat(call: Call) -> Call:
    """Return a request of the Responses API as a chat.

    Raises:
        FieldError: a chat cannot say what a field asks for; it is named.
    """
    fields = call.fields
    _refuse_rest(fields, _READ, "")
    if fields.get("truncation") == "auto":
        raise FieldError("truncation", "this model cannot honour 'truncation'; shorten the input")
    messages = read_items(fields["input"])
    if fields.get("instructions"):
        messages.insert(0, {"role": "system", "content": fields["instructions"]})
    chat: dict[str, Any] = {
        "model": call.model,
        "messages": messages,
        "max_completion_tokens": fields.get("max_output_tokens"),
        "user": fields.get("safety_identifier") or fields.get("user"),
        **_read_reasoning(fields.get("reasoning") or {}),
        **_read_text(fields.get("text") or {}),
        **_read_tools(fields),
        **{name: fields.get(name) for name in _SAME},
    }
    if chat["service_tier"] in _DEFAULT_TIERS:
        del chat["service_tier"]
    if _has_logprobs(fields.get("include")) or chat["top_logprobs"]:
        chat["logprobs"] = True
    else:
        del chat["top_logprobs"]
    if call.is_stream:
        _refuse_rest(fields.get("stream_options") or {}, (), "stream_options.")
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    chat = {name: value for name, value in chat.items() if value is not None}
    return replace(call, operation=Operation.CHAT, fields=chat, body=orjson.dumps(chat))


def _has_logprobs(include: list[Any] | None) -> bool:
    """Return whether log probabilities are asked for."""
    for index, each in enumerate(include or ()):
        if each not in _INCLUDABLE:
            raise FieldError(f"include[{index}]", f"this model has no {str(each)[:60]!r} to include")
    return _LOGPROBS in (include or ())


def _read_reasoning(reasoning: Mapping[str, Any]) -> dict[str, Any]:
    _refuse_rest(reasoning, ("effort", "summary", "generate_summary", "context", "mode"), "reasoning.")
    for name, usual in (("summary", "auto"), ("generate_summary", "auto"), ("context", "auto"), ("mode", "standard")):
        if reasoning.get(name) not in (None, usual):
            raise FieldError(f"reasoning.{name}", f"this model cannot honour 'reasoning.{name}'; use {usual!r}")
    return {"reasoning_effort": reasoning.get("effort")}


def _read_text(text: Mapping[str, Any]) -> dict[str, Any]:
    _refuse_rest(text, ("format", "verbosity"), "text.")
    chat: dict[str, Any] = {}
    if text.get("verbosity") not in (None, "medium"):
        chat["verbosity"] = text["verbosity"]
    match text.get("format"):
        case None | {"type": "text"}:
            pass
        case {"type": "json_object"}:
            chat["response_format"] = {"type": "json_object"}
        case {"type": "json_schema", "name": str(), "schema": dict()} as value:
            kept = ("name", "description", "schema", "strict")
            schema = {name: value[name] for name in kept if value.get(name) is not None}
            chat["response_format"] = {"type": "json_schema", "json_schema": schema}
        case _:
            why = "'text.format' must be of type 'text', 'json_object', or 'json_schema' with a name and a schema"
            raise FieldError("text.format", why)
    return chat


def _read_tools(fields: Mapping[str, Any]) -> dict[str, Any]:
    tools = [_read_tool(tool, f"tools[{index}]") for index, tool in enumerate(fields.get("tools") or ())]
    chat: dict[str, Any] = {}
    match fields.get("tool_choice"):
        case None | "auto":
            pass
        case "none" | "required" as choice:
            chat["tool_choice"] = choice if tools or choice == "required" else None
        case {"type": "function", "name": str(name)}:
            chat["tool_choice"] = {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            names = [tool.get("name") for tool in allowed if isinstance(tool, dict) and tool.get("type") == "function"]
            if len(names) < len(allowed):
                raise FieldError("tool_choice.tools", "this model has functions only; leave others out")
            tools = [tool for tool in tools if tool["function"]["name"] in names]
            chat["tool_choice"] = mode
        case _:
            why = "this model cannot honour this 'tool_choice'; use auto, none, required, allowed_tools or a function"
            raise FieldError("tool_choice", why)
    if tools:
        chat["tools"] = tools
        if fields.get("parallel_tool_calls") is False:
            chat["parallel_tool_calls"] = False
    return chat


def _read_tool(tool: Any, place: str) -> dict[str, Any]:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind != "function":
        raise FieldError(place, f"this model cannot use a tool of type {str(kind)[:60]!r}; its provider runs no tools")
    if not isinstance(tool.get("name"), str):
        raise FieldError(f"{place}.name", f"'{place}.name' must be a string")
    kept = ("name", "description", "parameters", "strict")
    _refuse_rest(tool, ("type", *kept), f"{place}.")
    return {"type": "function", "function": {name: tool[name] for name in kept if tool.get(name) is not None}}


def _refuse_rest(value: Mapping[str, Any], known: Collection[str], prefix: str) -> None:
    for name, each in value.items():
        if name not in known and each not in (None, False):
            raise FieldError(f"{prefix}{name}", f"this model cannot honour '{prefix}{name}'; leave it out")
