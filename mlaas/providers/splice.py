"""Changes to one member of a JSON object that leave every other byte as it was."""

from __future__ import annotations

import re

import orjson

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_VALUE = re.compile(rb"\s*:\s*(" + _STRING + rb")", re.DOTALL)
_COLON = re.compile(rb"\s*:\s*")
_TOKEN = re.compile(_STRING + rb"|[\[\]{},]", re.DOTALL)
_OPEN = re.compile(rb"\s*\{")


def replace_model(body: bytes, model: str) -> bytes:
    """Return a JSON object with its top-level `model` replaced.

    Args:
        body: a JSON object, known to be valid, with a top-level string member `model`.
        model: the new value.
    """
    value = orjson.dumps(model)
    # Only one such literal, and no letter of "model" written as an escape: then it is the top-level key.
    if body.count(b'"model"') == 1 and b"\\u006" not in body:
        found = _VALUE.match(body, body.index(b'"model"') + 7)
        if found is not None:
            return body[: found.start(1)] + value + body[found.end(1) :]
    return _replace(body, _spans(body, "model"), value)


def set_member(body: bytes, name: str, value: bytes) -> bytes:
    """Return a JSON object whose top-level member `name` is `value`: replaced, or put before all others.

    Args:
        body: a JSON object, known to be valid and not empty.
        name: the member.
        value: its value as JSON.
    """
    key = orjson.dumps(name)
    spans = _spans(body, name) if key in body or b"\\u" in body else []
    if spans:
        return _replace(body, spans, value)
    opened = _OPEN.match(body)
    start = opened.end() if opened is not None else 0
    return b"%b%b:%b,%b" % (body[:start], key, value, body[start:])


def insert_member(body: bytes, name: str, inner: str, value: bytes) -> bytes:
    """Return a JSON object whose top-level member `name`, an object that is not empty, has one more member in front.

    Args:
        body: a JSON object, known to be valid; text without quotes or brackets may surround it.
        name: the member; without it, or when it is no object, nothing changes.
        inner: the new member of it.
        value: its value as JSON.
    """
    pieces, end = [], 0
    for start, _ in _spans(body, name):
        if body[start : start + 1] == b"{":
            pieces += [body[end:start], b"{%b:%b," % (orjson.dumps(inner), value)]
            end = start + 1
    return b"".join((*pieces, body[end:]))


def _replace(body: bytes, spans: list[tuple[int, int]], value: bytes) -> bytes:
    pieces, end = [], 0
    for start, stop in spans:
        pieces += [body[end:start], value]
        end = stop
    return b"".join((*pieces, body[end:]))


def _spans(body: bytes, name: str) -> list[tuple[int, int]]:
    """Return where the values of top-level members called `name` start and stop; a key may come twice."""
    spans, depth, position, start = [], 0, 0, -1
    while (token := _TOKEN.search(body, position)) is not None:
        position = token.end()
        text = token.group()
        if start >= 0 and depth == 1 and text in b",}":
            spans.append((start, start + len(body[start : token.start()].rstrip())))
            start = -1
        if text in b"[{":
            depth += 1
        elif text in b"]}":
            depth -= 1
        elif depth == 1 and text != b"," and start < 0 and (colon := _COLON.match(body, position)) is not None:
            position = colon.end()
            start = position if orjson.loads(text) == name else -1
    return spans
