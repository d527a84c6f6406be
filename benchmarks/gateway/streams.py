"""Reads many streams at once and tells chunks per second, time to the first chunk, and gaps between chunks.

`python -m benchmarks.gateway.streams --url URL [--header 'name: value'] [--per-s 50]` prints one line of JSON. It runs
as a process of its own and only counts events, so that it reads faster than any gateway writes: compare with the same
run against the upstream itself.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import uvloop

_EVENT = b"data: {"
_DONE = b"data: [DONE]"


class Stream(asyncio.Protocol):
    """One request and its stream; each arrival is kept with the number of chunks that it brought."""

    def __init__(self, request: bytes, done: asyncio.Future[None]) -> None:
        self.sent_s = 0.0
        self.arrivals: list[tuple[float, int]] = []
        self._request = request
        self._done = done
        self._tail = b""

    def connection_made(self, transport: Any) -> None:
        """Send the request."""
        self._transport = transport
        self.sent_s = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count the events that came."""
        now_s = time.perf_counter()
        data = self._tail + data
        if not self.arrivals and not data.startswith(b"HTTP/1.1 200"):
            self._done.set_exception(RuntimeError(f"not a stream: {data[:300]!r}"))
            return
        num = data.count(_EVENT)
        if num:
            self.arrivals.append((now_s, num))
        elif not self.arrivals:
            self._tail = data
            return
        # A marker that is cut between two reads is found when its rest comes.
        self._tail = data[max(data.rfind(_EVENT) + len(_EVENT), len(data) - len(_DONE) + 1) :]
        if _DONE in data:
            self._transport.close()
            self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """A stream that ends without its last event is an error."""
        if not self._done.done():
            self._done.set_exception(
                RuntimeError(f"a stream broke off after {sum(n for _, n in self.arrivals)} chunks")
            )


async def read_streams(
    url: str, headers: Sequence[str], *, num_streams: int, num_chunks: int, per_s: int, within_s: float
) -> dict[str, float]:
    """Read `num_streams` streams at once, begun evenly over `within_s` seconds, and return what was measured.

    Raises:
        RuntimeError: a stream is refused or cut short.
    """
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    fields: dict[str, Any] = {
        "model": "fast",
        "messages": [{"role": "user", "content": "Say hello."}],
        "stream": True,
        "max_tokens": num_chunks,
    }
    if per_s:
        fields["seed"] = per_s
    body = json.dumps(fields).encode()
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", "content-type: application/json", *headers]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
    request = head.encode() + body
    streams: list[Stream] = []
    waits: list[asyncio.Future[None]] = []
    began_s = time.perf_counter()
    for index in range(num_streams):
        done = loop.create_future()
        stream = Stream(request, done)
        await loop.create_connection(lambda stream=stream: stream, parts.hostname, parts.port)  # type: ignore[misc]
        streams.append(stream)
        waits.append(done)
        if within_s:
            await asyncio.sleep(began_s + (index + 1) / num_streams * within_s - time.perf_counter())
    await asyncio.gather(*waits)
    took_s = time.perf_counter() - began_s
    num = sum(count for stream in streams for _, count in stream.arrivals)
    firsts = sorted(stream.arrivals[0][0] - stream.sent_s for stream in streams)
    gaps = sorted(gap for stream in streams for gap in _gaps(stream.arrivals))
    return {
        "chunks_per_s": num / took_s,
        "num_chunks": num,
        "ttft_p50_ms": firsts[len(firsts) // 2] * 1000,
        "gap_p50_ms": gaps[len(gaps) // 2] * 1000,
        "gap_p99_ms": gaps[int(len(gaps) * 0.99)] * 1000,
    }


def _gaps(arrivals: list[tuple[float, int]]) -> list[float]:
    """Return the time between chunks; those that came together have none."""
    gaps = [0.0] * (arrivals[0][1] - 1)
    for (before_s, _), (at_s, count) in itertools.pairwise(arrivals):
        gaps += [at_s - before_s] + [0.0] * (count - 1)
    return gaps


def main() -> None:
    """Read the streams and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--chunks", type=int, default=500)
    parser.add_argument("--per-s", type=int, default=0)
    parser.add_argument("--within-s", type=float, default=0.0, help="time over which the streams begin")
    options = parser.parse_args()
    figures = uvloop.run(
        read_streams(
            options.url,
            options.header,
            num_streams=options.streams,
            num_chunks=options.chunks,
            per_s=options.per_s,
            within_s=options.within_s,
        )
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
