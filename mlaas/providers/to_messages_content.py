"""The messages of a chat as the turns and content blocks of Anthropic's Messages API.

Source: OpenAI API reference, chat completions; Anthropic API reference, messages; types of both Python SDKs.
"""

from __future__ import annotations

import re
import zlib
from operator import itemgetter
from typing import Any, Final

import orjson

from mlaas.providers.base import FieldError
from mlaas.providers.thinking import is_thinking, read_thinking

TOOL_ERROR: Final = "The tool failed with this error:"
"""A tool message whose first text part is this tells of a failure: chats have no field for it."""

_DATA_URL: Final = re.compile(r"data:(image/[a-z+.-]+);base64,(.*)", re.DOTALL)
_TOOL_ID: Final = re.compile(r"[A-Za-z0-9_-]+")
_PART_FIELDS: Final = ("type", "text", "refusal", "image_url", "cache_control")
_ASSISTANT_FIELDS: Final = (
    "role",
    "content",
    "tool_calls",
    "refusal",
    "annotations",
    "search_results",
    "reasoning_content",
    "thinking_blocks",
)

Blocks = list[dict[str, Any]]


def split_messages(name: str, messages: list[dict[str, Any]], *, model: str) -> tuple[Blocks, Blocks]:
    """Return the system prompt's blocks and the turns.

    Neighbours of one role become one turn, and the results of tools come first in theirs.

    Args:
        name: the provider, for messages.
        messages: of a chat.
        model: gets the thinking that it wrote itself.

    Raises:
        FieldError: a message holds what the Messages API has nothing like; its place is named.
    """
    system: Blocks = []
    turns: Blocks = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        match message["role"]:
            case "system" | "developer":
                _refuse_extras(name, message, place, ("role", "content"))
                system += _encode_content(name, message, place, has_images=False)
            case "user":
                _refuse_extras(name, message, place, ("role", "content"))
                _add_turn(turns, "user", _encode_content(name, message, place, has_images=True))
            case "assistant":
                _add_turn(turns, "assistant", _encode_assistant(name, message, place, model))
            case "tool":
                _add_turn(turns, "user", [_encode_tool_result(name, message, place)])
            case role:
                raise FieldError(f"{place}.role", f"{name} cannot take a message of role {role[:50]!r}")
    return system, turns


def _add_turn(turns: Blocks, role: str, blocks: Blocks) -> None:
    if not turns or turns[-1]["role"] != role:
        if blocks:
            turns.append({"role": role, "content": blocks})
        return
    content = turns[-1]["content"]
    if blocks and blocks[0]["type"] == "tool_result":
        num_results = sum(block["type"] == "tool_result" for block in content)
        content[num_results:num_results] = blocks
    else:
        content += blocks


def _encode_assistant(name: str, message: dict[str, Any], place: str, model: str) -> Blocks:
    _refuse_extras(name, message, place, _ASSISTANT_FIELDS)
    blocks = _encode_content(name, message, place, has_images=False)
    if message.get("refusal"):
        blocks.append({"type": "text", "text": message["refusal"]})
    for index, call in enumerate(message.get("tool_calls") or ()):
        where = f"{place}.tool_calls[{index}]"
        match call:
            case {"type": "function", "id": str(call_id), "function": {"name": str(function), "arguments": str(text)}}:
                value = _parse_input(text, where)
                blocks.append({"type": "tool_use", "id": _tool_id(call_id), "name": function, "input": value})
            case _:
                raise FieldError(where, f"'{where}' is not a call of a function with id, name and arguments")
    own = []
    for index, block in enumerate(message.get("thinking_blocks") or ()):
        where = f"{place}.thinking_blocks[{index}]"
        if not is_thinking(block):
            raise FieldError(where, f"'{where}' must be a block of type thinking or redacted_thinking")
        own.append(read_thinking(block, model=model))
    for position, block in sorted(filter(None, own), key=itemgetter(0)):
        blocks.insert(position, block)
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
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": _tool_id(call_id)}
    if content and content[0].get("text") == TOOL_ERROR and isinstance(message["content"], list):
        return {**block, "content": content[1:], "is_error": True}
    return {**block, "content": content}


def _tool_id(call_id: str) -> str:
    """Return an id that Anthropic takes, the same for a call and its result; other providers' ids may have dots."""
    if _TOOL_ID.fullmatch(call_id):
        return call_id
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', call_id)}_{zlib.crc32(call_id.encode()):08x}"


def _encode_content(name: str, message: dict[str, Any], place: str, *, has_images: bool) -> Blocks:
    """Return content blocks; an empty text, which the Messages API refuses, is no block."""
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks: Blocks = []
    for index, part in enumerate(content or ()):
        where = f"{place}.content[{index}]"
        match part:
            case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
                block: dict[str, Any] = {"type": "text", "text": text}
            case {"type": "image_url", "image_url": {"url": str(url)}} if has_images:
                block = {"type": "image", "source": _encode_image(name, url, where)}
            case _:
                raise FieldError(where, f"{name} cannot take '{where}' in a message of role {message['role']!r}")
        _refuse_extras(name, part, where, _PART_FIELDS)
        if part.get("cache_control"):
            block["cache_control"] = part["cache_control"]
        if block.get("text") != "":
            blocks.append(block)
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
