"""The gateway as one plain ASGI callable: no framework is on the way of a request."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl

from mlaas.auth.types import Principal
from mlaas.errors import LimitExceeded, MlaasError, NotFound
from mlaas.observability.tracing import RequestTrace, Tracing
from mlaas.providers.base import Call, Failure, FailureKind, Operation, ProviderFailed
from mlaas.router.asgi import Headers, Receive, Scope, Send, describe, header, send_failure, send_result
from mlaas.router.caches.exact import HEADER as CACHE_HEADER
from mlaas.router.caches.exact import is_bypassed
from mlaas.router.dialects.base import Dialect
from mlaas.router.dialects.build import DIALECTS
from mlaas.router.exchange import TRACE
from mlaas.router.gate import Gate
from mlaas.router.record import RequestRecord
from mlaas.router.reply import HttpReply, Reply
from mlaas.router.request import ClientGone, forwarded_headers, parse_call, read_body
from mlaas.router.routes import Request, Route

_CALLS = {f"/v1/{operation.value}": DIALECTS[operation] for operation in Operation}
_ANTHROPIC = "/v1/messages"
_MAX_REQUEST_ID = 128
_WATCH_AFTER_S = 0.05
"""Whether a caller is still there is not asked of a request that is over sooner: the question has its price."""
_INTERNAL = Failure(
    kind=FailureKind.FAILED,
    status=500,
    code="internal_error",
    message="the gateway failed; its log has the details under the id in x-request-id",
    type="server_error",
)

logger = logging.getLogger(__name__)


class Calls(Protocol):
    """Answers calls to a model."""

    async def answer(
        self, call: Call, principal: Principal, reply: Reply, record: RequestRecord, *, is_fresh: bool
    ) -> None:
        """Answer a call.

        Raises:
            MlaasError: it is refused.
            ProviderFailed: nobody could answer, and nothing has been sent.
        """

    def limit_headers(self, principal: Principal) -> Headers:
        """Return what a refused caller is told of its limits."""


@dataclass(frozen=True, kw_only=True)
class GatewayApp:
    """Answers the gateway's HTTP requests.

    Attributes:
        calls: answers calls to a model.
        gate: knows who is calling.
        record: takes what each request was, at its end.
        routes: everything that is not a call to a model.
        tracing: None where nobody collects traces.
    """

    calls: Calls
    gate: Gate
    record: Callable[[RequestRecord], None]
    routes: Sequence[Route]
    tracing: Tracing | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        began_s = time.perf_counter()
        path = scope["path"]
        record = RequestRecord(
            id=f"{random.getrandbits(128):032x}", request_id=_request_id(scope), at_s=time.time(), route=path[:256]
        )
        dialect = _CALLS.get(path)
        trace = self._begin_trace(scope) if self.tracing is not None and dialect is not None else None
        try:
            if dialect is not None and scope["method"] == "POST":
                await self._call(dialect, scope, receive, send, record)
            else:
                await self._answer(scope, receive, send, record)
        except MlaasError as error:
            await _refuse(send, describe(error), record, path)
        except ProviderFailed as error:
            await _refuse(send, error.failure, record, path)
        except ClientGone:
            record.error = "client_gone"
        except Exception as error:
            # The outermost frame of a request: a bug must not leave its caller without an answer.
            logger.error("request %s failed: %s%s", record.request_id, type(error).__name__, _frames(error))
            if record.status == 200:
                raise
            await _refuse(send, _INTERNAL, record, path)
        except asyncio.CancelledError:
            record.error = "client_gone"
            raise
        finally:
            record.duration_ms = round((time.perf_counter() - began_s) * 1000, 3)
            if trace is not None:
                trace.end(record)
            self.record(record)

    def _begin_trace(self, scope: Scope) -> RequestTrace:
        """Begin the request's trace, or continue its caller's."""
        assert self.tracing is not None
        given = {name: header(scope, name.encode()) for name in ("traceparent", "tracestate")}
        trace = self.tracing.begin({name: str(value, "latin-1") for name, value in given.items() if value is not None})
        TRACE.set(trace)
        return trace

    async def _call(self, dialect: Dialect, scope: Scope, receive: Receive, send: Send, record: RequestRecord) -> None:
        principal = self.gate.admit(scope)
        record.key_id, record.tenant = principal.key_id, principal.tenant
        record.operation = dialect.operation.value
        call = parse_call(dialect, await read_body(scope, receive), forwarded_headers(scope))
        record.model, record.is_stream = call.model[:300], call.is_stream
        is_fresh = is_bypassed(header(scope, CACHE_HEADER))
        work = self.calls.answer(call, principal, HttpReply(send), record, is_fresh=is_fresh)
        try:
            await _until_disconnect(receive, work)
        except LimitExceeded as error:
            await _refuse(send, describe(error), record, scope["path"], self.calls.limit_headers(principal))

    async def _answer(self, scope: Scope, receive: Receive, send: Send, record: RequestRecord) -> None:
        path, method = scope["path"], scope["method"]
        found = [(each, match) for each in self.routes if (match := each.pattern.fullmatch(path))]
        allowed = sorted({each.method for each, _ in found} | ({"POST"} if path in _CALLS else set()))
        chosen = next(((each, match) for each, match in found if each.method == method), None)
        if chosen is None and allowed:
            await _refuse(send, _wrong_method(method, path, allowed), record, path, [(b"allow", _join(allowed))])
            return
        if chosen is None:
            known = sorted({*_CALLS, *(each.shown for each in self.routes)})
            raise NotFound("unknown_route", f"there is no {path[:200]}; there are: {', '.join(known)}")
        route, match = chosen
        principal = None
        if not route.is_open:
            principal = self.gate.admit(scope)
            record.key_id, record.tenant = principal.key_id, principal.tenant
        request = Request(
            principal=principal,
            path=match.groups(),
            query=dict(parse_qsl(str(scope.get("query_string", b""), "latin-1"), keep_blank_values=True)),
            headers={str(name, "latin-1"): str(value, "latin-1") for name, value in scope["headers"]},
            body=b"" if method == "GET" else await read_body(scope, receive, max_bytes=route.max_body_bytes),
        )
        result = await route.handler(request)
        record.status = result.status
        await send_result(send, result.status, result.body, result.content_type, result.headers)


async def _until_disconnect(receive: Receive, work: Awaitable[None]) -> None:
    """Await `work`, and cancel it as soon as the caller leaves.

    Raises:
        ClientGone: the caller has left.
    """
    task = asyncio.current_task()
    is_gone = is_over = False
    watch: asyncio.Task[None] | None = None

    def leave(done: asyncio.Task[None]) -> None:
        nonlocal is_gone
        if not (is_over or done.cancelled()) and task is not None:
            is_gone = True
            task.cancel()

    def begin() -> None:
        nonlocal watch
        watch = asyncio.create_task(_disconnected(receive))
        watch.add_done_callback(leave)

    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, begin)
    try:
        await work
    except asyncio.CancelledError:
        if is_gone and task is not None and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        is_over = True
        timer.cancel()
        if watch is not None:
            watch.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: Send, failure: Failure, record: RequestRecord, path: str, extra: Headers | None = None) -> None:
    """Send an error in the shape of the API that the path belongs to."""
    record.status, record.error = failure.status, failure.code
    is_anthropic = path == _ANTHROPIC or path.startswith(f"{_ANTHROPIC}/")
    dialect = DIALECTS[Operation.MESSAGES if is_anthropic else Operation.CHAT]
    await send_failure(send, failure, dialect.encode_error(failure), extra)


def _frames(error: Exception) -> str:
    """Return where an error happened, without its text, which may hold a part of a prompt."""
    return "".join(
        f"\n  {frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
    )


def _wrong_method(method: str, path: str, allowed: Sequence[str]) -> Failure:
    return Failure(
        kind=FailureKind.REJECTED,
        status=405,
        code="method_not_allowed",
        message=f"{path} takes {' or '.join(allowed)}, not {method}",
        type="invalid_request_error",
    )


def _join(methods: Sequence[str]) -> bytes:
    return ", ".join(methods).encode()


def _request_id(scope: Scope) -> str:
    """Return the caller's or the ingress's id of the request, so that all logs agree on it."""
    given = header(scope, b"x-request-id")
    return str(given[:_MAX_REQUEST_ID], "latin-1") if given else uuid.uuid4().hex
