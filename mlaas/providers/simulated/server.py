"""The simulator's HTTP side: routes, pace, faults, and what it has seen."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from aiohttp import web

from mlaas.providers.simulated.chat_wire import ChatWire, CompletionWire
from mlaas.providers.simulated.directive import DEFAULTS, RANDOM_FAULTS, Options, parse_directive
from mlaas.providers.simulated.embeddings_wire import answer_embeddings
from mlaas.providers.simulated.messages_wire import MessagesWire
from mlaas.providers.simulated.refusals import Refusal, encode_refusal, refuse_quota, utc_now, wait_headers
from mlaas.providers.simulated.responses_wire import ResponsesWire
from mlaas.providers.simulated.rules import check_rules
from mlaas.providers.simulated.script import BadRequest, Script, write_script
from mlaas.providers.simulated.wire import Wire

_BASES: Final = {
    "/v1": "plain",
    "/openai/v1": "openai",
    "/anthropic/v1": "anthropic",
    "/gemini/v1beta/openai": "gemini",
    "/perplexity/v1": "perplexity",
    "/perplexity": "perplexity",
    "/xai/v1": "xai",
    "/vllm/v1": "vllm",
}
"""Path that a vendor's base URL ends in."""
_WIRES: Final[dict[str, Wire]] = {
    "/chat/completions": ChatWire(),
    "/completions": CompletionWire(),
    "/messages": MessagesWire(),
    "/responses": ResponsesWire(),
    "/agent": ResponsesWire(),
}
_MAX_BODY_BYTES: Final = 64 * 1024**2
_WAITING: Final = (429, 503, 529)
"""Statuses that come with a wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A request as it came.

    Attributes:
        path: of its URL.
        headers: names in lower case.
        body: raw.
    """

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> Any:
        """The body decoded."""
        return orjson.loads(self.body)


class Simulator:
    """Every provider in one server.

    Args:
        seed: answers and random faults depend on it.
        fault_rate: share of the requests that fail without being asked to.
        defaults: options of requests that do not give them.

    Attributes:
        seen: the last requests.
        num_requests: since the start.
        num_active: requests under way.
        num_cancelled: requests whose caller left before the answer was complete.
        faults: how often each fault was played.
    """

    def __init__(self, *, seed: int = 0, fault_rate: float = 0.0, defaults: Options = DEFAULTS) -> None:
        self.seen: deque[Seen] = deque(maxlen=32)
        self.num_requests = 0
        self.num_active = 0
        self.num_cancelled = 0
        self.faults: Counter[str] = Counter()
        self._seed = seed
        self._fault_rate = fault_rate
        self._defaults = defaults
        self._dice = random.Random(seed)

    def app(self) -> web.Application:
        """Return the server's application."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_get("/simulator", self._tell)
        for base, vendor in _BASES.items():
            app.router.add_get(f"{base}/models", self._list_models)
            app.router.add_post(f"{base}/embeddings", self._handler(vendor, None))
            app.router.add_post(f"{base}/messages/count_tokens", self._handler(vendor, MessagesWire(), is_count=True))
            for path, wire in _WIRES.items():
                app.router.add_post(base + path, self._handler(vendor, wire))
        return app

    async def _tell(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": self.num_requests,
                "active": self.num_active,
                "cancelled": self.num_cancelled,
                "faults": dict(self.faults),
            }
        )

    async def _list_models(self, request: web.Request) -> web.Response:
        model = {"id": "simulated", "object": "model", "created": 1_700_000_000, "owned_by": "simulator"}
        return web.json_response({"object": "list", "data": [model]})

    def _handler(self, vendor: str, wire: Wire | None, *, is_count: bool = False) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.num_requests += 1
            self.num_active += 1
            try:
                return await _Exchange(self, request, vendor).answer(wire, is_count=is_count)
            except asyncio.CancelledError:
                self.num_cancelled += 1
                raise
            except ConnectionError:
                self.num_cancelled += 1
                return web.Response()  # to nobody
            finally:
                self.num_active -= 1

        return handle

    def direct(self, model: str, headers: dict[str, str]) -> tuple[str, Options]:
        """Return the fault that a request asks for or has drawn, and its options.

        Raises:
            ValueError: no such fault or option.
        """
        fault, options = parse_directive(model, headers, self._defaults)
        if not fault and self._fault_rate and self._dice.random() < self._fault_rate:
            fault = self._dice.choice(RANDOM_FAULTS)
        if fault:
            self.faults[fault] += 1
        return fault, options

    def write(self, wire: Wire, body: dict[str, Any], options: Options) -> Script:
        """Return the answer to a request.

        Raises:
            BadRequest: it is not one of this format.
        """
        return write_script(wire.read(body), options, seed=self._seed)


class _Exchange:
    """One request and its answer."""

    def __init__(self, simulator: Simulator, request: web.Request, vendor: str) -> None:
        self._simulator = simulator
        self._request = request
        self._vendor = vendor
        self._fault = ""
        self._options = DEFAULTS

    async def answer(self, wire: Wire | None, *, is_count: bool) -> web.StreamResponse:
        """Answer as the request asks for: `wire` is None for embeddings."""
        raw = await self._request.read()
        headers = {name.lower(): value for name, value in self._request.headers.items()}
        self._simulator.seen.append(Seen(path=self._request.path, headers=headers, body=raw))
        try:
            body = orjson.loads(raw)
            self._fault, self._options = self._simulator.direct(str(body.get("model")), headers)
            failed = await self._fail()
            if failed is not None:
                return failed
            check_rules(self._vendor, body)
            if wire is None:
                return self._json(answer_embeddings(body))
            script = self._simulator.write(wire, body, self._options)
        except BadRequest as error:
            return self._refuse(Refusal(status=400, message=error.message, param=error.param))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self._refuse(Refusal(status=400, message=f"cannot read the request: {error}"))
        if is_count:
            return self._json({"input_tokens": script.input_tokens})
        script = _spoil(script, self._fault)
        if body.get("stream"):
            return await self._stream(wire.events(body, script, self._vendor), wire)
        await asyncio.sleep(self._pause(len(script.pieces)))
        return await self._whole(wire.answer(body, script, self._vendor))

    async def _fail(self) -> web.StreamResponse | None:
        """Play the faults that come before any answer."""
        options = self._options
        if self._fault == "slow":
            await asyncio.sleep(options.stall)
        elif options.latency:
            await asyncio.sleep(options.latency)
        if self._fault == "disconnect":
            self._abort()
            return web.Response()
        if self._fault == "quota":
            return self._refuse(refuse_quota(self._vendor))
        if not self._fault.isdigit():
            return None
        after_s = options.after if options.form == "retry-info" else None
        status = int(self._fault)
        refusal = Refusal(status=status, message=f"told to say {status}", after_s=after_s)
        return self._refuse(refusal, wait_headers(options, now=utc_now()) if status in _WAITING else {})

    async def _whole(self, value: Any) -> web.StreamResponse:
        match self._fault:
            case "malformed":
                return web.Response(body=orjson.dumps(value)[:-9], content_type="application/json")
            case "error":
                return self._json(encode_refusal(self._vendor, _MID_STREAM))
            case "truncated":
                text = orjson.dumps(value)
                response = web.StreamResponse(headers={"content-type": "application/json"})
                response.content_length = len(text)
                await response.prepare(self._request)
                await response.write(text[: len(text) // 2])
                self._abort()
                return response
        return self._json(value)

    async def _stream(self, events: Sequence[bytes], wire: Wire) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(self._request)
        middle = 0 if self._fault == "error-first" else len(events) // 2
        clock = asyncio.get_running_loop().time
        start_s = clock()
        for index, event in enumerate(events):
            if index == middle and self._fault and await self._break(response, event, wire):
                return response
            pause_s = start_s + self._pause(index) - clock()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            await response.write(event)
        return response

    async def _break(self, response: web.StreamResponse, event: bytes, wire: Wire) -> bool:
        """Play the faults of a stream; return whether it ends there."""
        match self._fault:
            case "stall":
                await asyncio.sleep(self._options.stall)
                return False
            case "truncated":
                await response.write(event[: len(event) // 2])
                await asyncio.sleep(0)
                self._abort()
            case "malformed":
                await response.write(event[: len(event) // 2] + b"\n\n")
                return False
            case "error" | "error-first":
                await response.write(wire.error_event(self._vendor, _MID_STREAM))
            case "endless":
                while True:
                    await response.write(event)
                    await asyncio.sleep(0.01)
            case "short":
                pass
            case _:
                return False
        return True

    def _pause(self, index: int) -> float:
        """Return the seconds from the start to the piece at `index`."""
        return index / self._options.rate if self._options.rate else 0.0

    def _json(self, value: Any) -> web.Response:
        return web.Response(body=orjson.dumps(value), content_type="application/json")

    def _refuse(self, refusal: Refusal, headers: dict[str, str] | None = None) -> web.Response:
        body = orjson.dumps(encode_refusal(self._vendor, refusal))
        return web.Response(body=body, status=refusal.status, headers=headers, content_type="application/json")

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


_MID_STREAM: Final = Refusal(status=503, message="told to fail in the middle")


def _spoil(script: Script, fault: str) -> Script:
    if fault == "no-usage":
        return replace(script, has_usage=False)
    if fault == "wrong-usage":
        return replace(script, input_tokens=-7, output_tokens=-5, cache_read_tokens=10**9)
    return script
