"""The items of a response's input, as the messages of a chat.

Source: openai-python, `ResponseInputItemParam` and `ChatCompletionMessageParam`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from mlaas.providers.base import FieldError
from mlaas.providers.past_items import carry_over
from mlaas.providers.sealed_thinking import open_thinking

_Json = dict[str, Any]
_OF_EVERY_ITEM: Final = ("type", "id", "status")


def read_items(given: str | list[Any]) -> list[_Json]:
    """Return the messages that an input says.

    Raises:
        FieldError: a chat has nothing like an item, or an item is not whole; its place is named.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[_Json] = []
    answer: _Answer | None = None
    for index, item in enumerate(carry_over(given, reader=None)):
        place = f"input[{index}]"
        kind = _kind_of(item, place)
        if kind in _ANSWER_READERS:
            if answer is None:
                answer = _Answer()
                messages.append(answer.message)
            _ANSWER_READERS[kind](answer, item, place)
        else:
            answer = None
            messages.append(_read_result(item, place) if kind == "function_call_output" else _read_turn(item, place))
    return [_settle(message) for message in messages if message != {"role": "assistant", "content": []}]


class _Answer:
    """What the model said in one go, as one message."""

    def __init__(self) -> None:
        self.message: _Json = {"role": "assistant", "content": []}

    def read_message(self, item: Mapping[str, Any], place: str) -> None:
        """Take a message of the assistant's."""
        _refuse_rest(item, ("role", "content", "phase"), place)
        for part in _list_parts(item, place):
            where, value = part
            match value:
                case {"type": "output_text" | "input_text", "text": str(text)}:
                    self.message["content"].append({"type": "text", "text": text})
                case {"type": "refusal", "refusal": str(refusal)}:
                    self.message["refusal"] = self.message.get("refusal", "") + refusal
                case _:
                    raise FieldError(where, f"'{where}' of an assistant must be 'output_text' or 'refusal'")

    def read_reasoning(self, item: Mapping[str, Any], place: str) -> None:
        """Take reasoning: what the gateway sealed comes back as it was, other ciphers are for their writer alone."""
        _refuse_rest(item, ("summary", "content", "encrypted_content"), place)
        sealed = item.get("encrypted_content")
        blocks = open_thinking(sealed) if isinstance(sealed, str) else None
        if blocks:
            self.message.setdefault("thinking_blocks", []).extend(blocks)
        texts = [
            _text(part, "text", f"{place}.{name}[{index}]")
            for name in ("summary", "content")
            for index, part in enumerate(_list(item, name, place))
        ]
        if texts:
            before = self.message.get("reasoning_content")
            self.message["reasoning_content"] = "\n\n".join([before, *texts] if before else texts)

    def read_call(self, item: Mapping[str, Any], place: str) -> None:
        """Take a call of a function."""
        _refuse_rest(item, ("call_id", "name", "arguments", "extra_content"), place)
        function = {name: _text(item, name, place) for name in ("name", "arguments")}
        call: _Json = {"id": _text(item, "call_id", place), "type": "function", "function": function}
        if isinstance(item.get("extra_content"), dict):
            call["extra_content"] = item["extra_content"]
        self.message.setdefault("tool_calls", []).append(call)


_ANSWER_READERS: Final[Mapping[str, Callable[[_Answer, Mapping[str, Any], str], None]]] = {
    "assistant": _Answer.read_message,
    "reasoning": _Answer.read_reasoning,
    "function_call": _Answer.read_call,
}


def _settle(message: _Json) -> _Json:
    """Return a message with one piece of text as text, and none as null."""
    match message:
        case {"role": "assistant", "content": []}:
            return {**message, "content": None}
        case {"role": "assistant" | "system" | "developer", "content": [{"type": "text", "text": text}]}:
            return {**message, "content": text}
    return message


def _kind_of(item: object, place: str) -> str:
    if not isinstance(item, dict):
        raise FieldError(place, f"'{place}' must be an object")
    kind = item.get("type")
    if kind == "item_reference" or (kind is None and "role" not in item):
        raise FieldError(place, f"'{place}' refers to an item that the gateway does not keep; send the item itself")
    if kind in (None, "message"):
        role = item.get("role")
        if role not in ("user", "assistant", "system", "developer"):
            raise FieldError(f"{place}.role", f"'{place}.role' must be user, assistant, system or developer")
        return str(role)
    if kind not in ("reasoning", "function_call", "function_call_output"):
        raise FieldError(f"{place}.type", f"this model cannot take an item of type {str(kind)[:60]!r} in '{place}'")
    return str(kind)


def _read_turn(item: Mapping[str, Any], place: str) -> _Json:
    _refuse_rest(item, ("role", "content", "phase"), place)
    if isinstance(item.get("content"), str):
        return {"role": item["role"], "content": item["content"]}
    has_media = item["role"] == "user"
    parts = [_read_part(part, where, has_media=has_media) for where, part in _list_parts(item, place)]
    return {"role": item["role"], "content": parts}


def _read_result(item: Mapping[str, Any], place: str) -> _Json:
    _refuse_rest(item, ("call_id", "output", "name"), place)
    output = item.get("output")
    if isinstance(output, list):
        output = [_read_part(part, f"{place}.output[{index}]", has_media=True) for index, part in enumerate(output)]
    elif not isinstance(output, str):
        raise FieldError(f"{place}.output", f"'{place}.output' must be a string or an array")
    return {"role": "tool", "tool_call_id": _text(item, "call_id", place), "content": output}


def _list_parts(item: Mapping[str, Any], place: str) -> list[tuple[str, Any]]:
    content = item.get("content")
    if isinstance(content, str):
        return [(f"{place}.content", {"type": "input_text", "text": content})]
    if not isinstance(content, list):
        raise FieldError(f"{place}.content", f"'{place}.content' must be a string or an array")
    return [(f"{place}.content[{index}]", part) for index, part in enumerate(content)]


def _read_part(part: Any, place: str, *, has_media: bool) -> _Json:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "input_text":
        _refuse_rest(part, ("text",), place)
        return {"type": "text", "text": _text(part, "text", place)}
    reader = _MEDIA_READERS.get(str(kind)) if has_media else None
    if reader is None:
        raise FieldError(f"{place}.type", f"this model cannot take a part of type {str(kind)[:60]!r} in '{place}'")
    return reader(part, place)


def _read_image(part: Mapping[str, Any], place: str) -> _Json:
    _refuse_rest(part, ("image_url", "detail"), place)
    image = {"url": _text(part, "image_url", place)}
    if part.get("detail") not in (None, "auto"):
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _read_file(part: Mapping[str, Any], place: str) -> _Json:
    _refuse_rest(part, ("file_data", "filename"), place)
    file = {"file_data": _text(part, "file_data", place), "filename": part.get("filename") or "file"}
    return {"type": "file", "file": file}


def _read_audio(part: Mapping[str, Any], place: str) -> _Json:
    _refuse_rest(part, ("input_audio",), place)
    return {"type": "input_audio", "input_audio": part.get("input_audio")}


_MEDIA_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], str], _Json]]] = {
    "input_image": _read_image,
    "input_file": _read_file,
    "input_audio": _read_audio,
}


def _list(value: Mapping[str, Any], name: str, place: str) -> list[Any]:
    items = value.get(name) or []
    if not isinstance(items, list):
        raise FieldError(f"{place}.{name}", f"'{place}.{name}' must be an array")
    return items


def _text(value: Any, name: str, place: str) -> str:
    text = value.get(name) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise FieldError(f"{place}.{name}", f"'{place}.{name}' must be a string")
    return text


def _refuse_rest(value: Mapping[str, Any], known: Collection[str], place: str) -> None:
    for name, each in value.items():
        if name not in known and name not in _OF_EVERY_ITEM and each is not None:
            raise FieldError(f"{place}.{name}", f"this model cannot honour '{place}.{name}'")
