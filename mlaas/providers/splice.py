"""Changes to one member of a JSON object that leave every other byte as it was."""

from __future__ import annotations

import re

import orjson

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_VALUE = re.compile(rb"\s*:\s*(" + _STRING + rb")", re.DOTALL)
_COLON = re.compile(rb"\s*:\s*")
_TOKEN = re.compile(_STRING + rb"|[\[\]{},]", re.DOTALL)
_OPEN = re.compile(rb"\s*\{")
_BRACE = ord("{")
_LONG_BYTES = 8192
_BYTES_PER_QUOTE = 256
_KEY_BYTES = 31
"""Longer than "model" with an escape for each letter."""


def replace_model(body: bytes, model: str) -> bytes:
    """Return a JSON object with its top-level `model` replaced.

    Args:
        body: a JSON object, known to be valid, with a top-level string member `model`.
        model: the new value.
    """
    value = orjson.dumps(model)
    after = _find_model(body)
    if after >= 0 and (found := _VALUE.match(body, after)) is not None:
        return body[: found.start(1)] + value + body[found.end(1) :]
    return _replace(body, _values(body, "model"), value)


def set_member(body: bytes, name: str, value: bytes) -> bytes:
    """Return a JSON object whose top-level member `name` is `value`: replaced, or put before all others.

    Args:
        body: a JSON object, known to be valid and not empty.
        name: the member.
        value: its value as JSON.
    """
    places = _values(body, name)
    return _replace(body, places, value) if places else add_member(body, name, value)


def rename_member(body: bytes, name: str, new: str) -> bytes:
    """Return a JSON object, known to be valid, whose top-level member `name` is called `new`."""
    return _replace(body, [key for key, _ in _members(body, name)], orjson.dumps(new))


def add_member(body: bytes, name: str, value: bytes) -> bytes:
    """Return a JSON object with one more top-level member in front.

    Args:
        body: a JSON object, known to be valid, not to be empty, and to have no such member.
        name: the new member.
        value: its value as JSON.
    """
    opened = _OPEN.match(body)
    start = opened.end() if opened is not None else 0
    return b"%b%b:%b,%b" % (body[:start], orjson.dumps(name), value, body[start:])


def insert_member(body: bytes, name: str, inner: str, value: bytes) -> bytes:
    """Return a JSON object whose top-level member `name`, an object that is not empty, has one more member in front.

    Args:
        body: a JSON object, known to be valid; text without quotes or brackets may surround it.
        name: the member; without it, or when it is no object, nothing changes.
        inner: the new member of it.
        value: its value as JSON.
    """
    places = [slice(each.start, each.start + 1) for each in _values(body, name) if body[each.start] == _BRACE]
    return _replace(body, places, b"{%b:%b," % (orjson.dumps(inner), value))


def _find_model(body: bytes) -> int:
    """Return where the top-level key "model" ends, -1 when a closer look is needed to tell.

    It is the one literal `"model"` of a body in which no letter of it is written as an escape. A long text is not
    searched for a word, at a nanosecond or two a byte, but for quotes, which is many times as fast where quotes are
    few.
    """
    return _find_model_by_quotes(body) if len(body) > _LONG_BYTES else _find_model_by_word(body)


def _find_model_by_word(body: bytes) -> int:
    is_sure = body.count(b'"model"') == 1 and b"\\u006" not in body
    return body.index(b'"model"') + 7 if is_sure else -1


def _find_model_by_quotes(body: bytes) -> int:
    found, start = -1, body.find(b'"')
    for _ in range(len(body) // _BYTES_PER_QUOTE):
        end = body.find(b'"', start + 1)
        if end < 0:
            return found
        piece = body[start + 1 : end] if end - start <= _KEY_BYTES else b""
        if b"\\u006" in piece or (piece == b"model" and found >= 0):
            return -1
        if piece == b"model":
            found = end + 1
        start = end
    return _find_model_by_word(body)


def _replace(body: bytes, places: list[slice], value: bytes) -> bytes:
    pieces, end = [], 0
    for place in places:
        pieces += [body[end : place.start], value]
        end = place.stop
    return b"".join((*pieces, body[end:]))


def _values(body: bytes, name: str) -> list[slice]:
    return [value for _, value in _members(body, name)]


def _members(body: bytes, name: str) -> list[tuple[slice, slice]]:
    """Return where the keys and values of top-level members called `name` are; a key may come twice."""
    members, depth, position, start, key = [], 0, 0, -1, slice(0)
    while (token := _TOKEN.search(body, position)) is not None:
        position = token.end()
        text = token.group()
        if start >= 0 and depth == 1 and text in b",}":
            stop = start + len(body[start : token.start()].rstrip())
            members.append((key, slice(start, stop)))
            start = -1
        if text in b"[{":
            depth += 1
        elif text in b"]}":
            depth -= 1
        elif depth == 1 and text != b"," and start < 0 and (colon := _COLON.match(body, position)) is not None:
            key = slice(token.start(), position)
            position = colon.end()
            start = position if orjson.loads(text) == name else -1
    return members
