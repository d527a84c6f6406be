"""An upstream that answers chats as fast as it can: whole, flooded or paced, as the request's own fields say.

`python -m benchmarks.gateway.upstream --port N`. Fields that every gateway passes on choose the answer:

- `stream` with `max_tokens`: that many chunks; `seed` is how many a second, each written on its own; absent: no pause,
  and four in one write, because the upstream would else be what is measured;
- model `broken`: an error of status 500.

GET answers what a gateway asks when it looks at an engine: health, version, list of models.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import orjson
import uvloop

MODELS = ("fast", "m")
_FLOOD_STEP = 4
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}
_CHUNK: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def _answer(status: str, value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status.encode(),
        len(body),
        body,
    )


def _chunk(value: bytes) -> bytes:
    event = b"data: " + value + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _delta(content: str | None) -> bytes:
    delta = {"content": content} if content else {}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None if content else "stop"}
    return _chunk(orjson.dumps({**_CHUNK, "choices": [choice]}))


_WHOLE = _answer("200 OK", ANSWER)
_BROKEN = _answer("500 Internal Server Error", {"error": {"message": "broken on request", "type": "server_error"}})
_LIST = _answer(
    "200 OK", {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "vllm"} for name in MODELS]}
)
_FINE = _answer("200 OK", {"status": "ok", "version": "0.32.0"})
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_TOKEN = _delta(" word")
_USAGE = _chunk(orjson.dumps({**_CHUNK, "choices": [], "usage": ANSWER["usage"]}))
_DONE = _chunk(b"[DONE]") + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection of the server."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._data = b""
        self._stream: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, transport: Any) -> None:
        """Take over the transport."""
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Stop a stream that nobody reads any more."""
        if self._stream is not None:
            self._stream.cancel()

    def pause_writing(self) -> None:
        """Wait: the reader is slower."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n") + 4) >= 4:
            head = self._data[:end].lower()
            _, _, rest = head.partition(b"content-length:")
            length = int(rest.split(b"\r\n", 1)[0]) if rest else 0
            if len(self._data) < end + length:
                return
            body, self._data = self._data[end : end + length], self._data[end + length :]
            self._reply(head, body)

    def _reply(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get"):
            self._transport.write(_LIST if b"/models" in head[:100] else _FINE)
        elif b'"broken"' in body[:400]:
            self._transport.write(_BROKEN)
        elif b'"stream":true' in body or b'"stream": true' in body:
            fields = orjson.loads(body)
            num = fields.get("max_tokens") or fields.get("max_completion_tokens") or 10
            has_usage = bool((fields.get("stream_options") or {}).get("include_usage"))
            self._stream = self._loop.create_task(self._run(num, fields.get("seed") or 0, has_usage=has_usage))
        else:
            self._transport.write(_WHOLE)

    async def _run(self, num: int, per_s: float, *, has_usage: bool) -> None:
        self._transport.write(_HEAD)
        began_s = self._loop.time()
        step = 1 if per_s else _FLOOD_STEP
        for index in range(0, num, step):
            # Without a pause, each stream has its turn, as an engine gives out tokens.
            await asyncio.sleep(began_s + index / per_s - self._loop.time() if per_s else 0)
            await self._may_write.wait()
            self._transport.write(_TOKEN * min(step, num - index))
        self._transport.write(_delta(None) + (_USAGE if has_usage else b"") + _DONE)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(loop), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))
