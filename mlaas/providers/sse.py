"""Server-sent events, cut out of a stream of bytes.

Source: WHATWG HTML, 9.2 (events end with a blank line; lines end with LF or CRLF; several `data:` lines join).
"""

from __future__ import annotations

import re

from mlaas.providers.base import ProviderFailed
from mlaas.providers.failures import unreadable

DONE = b"data: [DONE]\n\n"
_EVENT = re.compile(rb".+?(?:\r?\n){2,}", re.DOTALL)
_MAX_EVENT_BYTES = 8 * 1024 * 1024


def encode_event(data: bytes) -> bytes:
    """Return one event that carries `data`, which has no line breaks."""
    return b"data: " + data + b"\n\n"


class EventBuffer:
    """Holds back the torn end of a stream, so that only whole events go on.

    Attributes:
        held: the torn end.
    """

    __slots__ = ("_name", "held")

    def __init__(self, name: str) -> None:
        self._name = name
        self.held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes and return all whole events that are complete by now, as they came.

        Raises:
            ProviderFailed: one event is over 8 MiB.
        """
        data = self.held + chunk if self.held else chunk
        if data.endswith(b"\n\n"):
            self.held = b""
            return data
        end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
        if end < 4:
            end = 0
        self.held = data[end:]
        if len(self.held) > _MAX_EVENT_BYTES:
            raise ProviderFailed(unreadable(self._name, "an event over 8 MiB"))
        return data[:end]


def cut_events(events: bytes) -> list[bytes]:
    """Return each event of `events`, which holds whole events only, with the blank line that ends it."""
    return _EVENT.findall(events)


def split_events(events: bytes) -> list[bytes]:
    """Return the data of each event in `events`, which holds whole events only; events without data are dropped."""
    payloads = []
    for block in events.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
        if lines:
            payloads.append(b"\n".join(lines))
    return payloads
