"""Asks a provider of a simulated upstream, as the router does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import orjson

from mlaas.providers.base import Answer, Call, Failure, Operation, Provider, StreamDecoder
from mlaas.providers.build import build_provider
from mlaas.providers.simulated.chat_wire import ChatWire
from mlaas.providers.simulated.directive import parse_directive
from mlaas.providers.simulated.script import Script, write_script
from mlaas.providers.vllm import LOCAL, VLLM

BASES = {
    "openai": "/openai/v1",
    "anthropic": "/anthropic/v1",
    "gemini": "/gemini/v1beta/openai",
    "perplexity": "/perplexity/v1",
    "perplexity_sonar": "/perplexity",
    "xai": "/xai/v1",
    "openai_compatible": "/v1",
    LOCAL: "/vllm/v1",
}
"""By kind of provider: where its upstream is simulated."""

KEY = "sk-canary"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write a sum."}]
COST = Decimal("0.000012345")
INPUTS: dict[Operation, dict[str, Any]] = {
    Operation.CHAT: {"messages": MESSAGES},
    Operation.COMPLETION: {"prompt": "Write a sum."},
    Operation.MESSAGES: {"messages": MESSAGES[1:], "system": "Be brief.", "max_tokens": 100},
    Operation.RESPONSES: {"input": "Write a sum.", "instructions": "Be brief."},
}
"""A request of each API that answers with text."""


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """A provider, and where its upstream listens."""

    provider: Provider
    origin: str
    client: httpx.Client

    @contextmanager
    def post(self, call: Call, model: str) -> Iterator[httpx.Response]:
        """Send a request and yield the answer's head."""
        request = self.provider.encode_request(call, model=model)
        url = self.origin + request.path
        with self.client.stream("POST", url, content=request.body, headers=dict(request.headers)) as response:
            yield response

    def ask(self, call: Call, model: str = "m") -> Answer:
        """Return a whole answer."""
        with self.post(call, model) as response:
            assert response.status_code == 200, response.read()
            return self.provider.decode_answer(call, response.read())

    def fail(self, call: Call, model: str) -> Failure:
        """Return what an error answer means."""
        with self.post(call, model) as response:
            return self.provider.decode_error(response.status_code, response.headers, response.read())

    def stream(
        self,
        call: Call,
        model: str = "m",
        *,
        cut: Callable[[bytes], list[bytes]] = lambda chunk: [chunk],
        seen: list[bytes] | None = None,
    ) -> tuple[bytes, bytes, StreamDecoder]:
        """Return what came before the end, what came at the end, and the decoder; `seen` also tells of a failure."""
        decoder = self.provider.decode_stream(call)
        passed = seen if seen is not None else []
        with self.post(call, model) as response:
            assert response.status_code == 200, response.read()
            try:
                for chunk in response.iter_raw():
                    passed += [decoder.feed(piece) for piece in cut(chunk)]
            except httpx.RemoteProtocolError:
                pass
        tail = decoder.finish(COST)
        return b"".join(passed), tail, decoder


def build_upstream(kind: str, url: str, client: httpx.Client) -> Upstream:
    """Return the provider of a kind, and where its upstream is simulated."""
    origin = url + BASES[kind]
    return Upstream(provider=build(kind, origin), origin=origin, client=client)


def build(kind: str, origin: str) -> Provider:
    """Return the provider of a kind, for an upstream at an address."""
    return VLLM() if kind == LOCAL else build_provider(kind, name=kind, base_url=origin, api_key=KEY)


def build_call(operation: Operation = Operation.CHAT, *, is_stream: bool = False, **extra: Any) -> Call:
    """Return a call with the usual input of an API."""
    fields = {"model": "alias", **INPUTS[operation], **extra}
    if is_stream:
        fields["stream"] = True
    return Call(operation=operation, model="alias", is_stream=is_stream, fields=fields, body=orjson.dumps(fields))


def expect(fields: Mapping[str, Any], model: str = "m") -> Script:
    """Return what the simulator answers to a chat."""
    return write_script(ChatWire().read(fields), parse_directive(model, {})[1], seed=0)


def read_chunks(events: bytes) -> list[dict[str, Any]]:
    """Return the chunks of a whole streamed chat."""
    payloads = [block.removeprefix(b"data: ") for block in events.split(b"\n\n") if block]
    assert payloads.pop() == b"[DONE]"
    return [orjson.loads(payload) for payload in payloads]


def join_calls(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tool calls of a stream, put together as OpenAI's SDK does."""
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for piece in choice["delta"].get("tool_calls") or ():
                call = calls.setdefault(piece["index"], {**piece, "function": {**piece["function"], "arguments": ""}})
                call["function"]["arguments"] += piece["function"].get("arguments") or ""
    return [{key: value for key, value in calls[index].items() if key != "index"} for index in sorted(calls)]
