"""The gateway as one plain ASGI callable: no framework is on the way of a request."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl

from mlaas.auth.types import Principal
from mlaas.errors import LimitExceeded, MlaasError, NotFound
from mlaas.observability.tracing import RequestTrace, Tracing
from mlaas.providers.base import Call, Failure, FailureKind, Operation, ProviderFailed
from mlaas.router.alarms import Alarms
from mlaas.router.asgi import Headers, Receive, Scope, Send, describe, header, send_failure, send_result
from mlaas.router.caches.exact import HEADER as CACHE_HEADER
from mlaas.router.caches.exact import is_bypassed
from mlaas.router.dialects.base import Dialect
from mlaas.router.dialects.build import DIALECTS
from mlaas.router.exchange import TRACE
from mlaas.router.gate import Gate
from mlaas.router.record import RequestRecord, new_id
from mlaas.router.reply import HttpReply, Reply
from mlaas.router.request import ClientGone, forwarded_headers, parse_call, read_body
from mlaas.router.routes import Request, Route

_CALLS = {f"/v1/{operation.value}": DIALECTS[operation] for operation in Operation}
_ANTHROPIC = "/v1/messages"
_MAX_REQUEST_ID = 128
_WATCH_AFTER_S = 0.05
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
        patience: whether a caller is still there is not asked of a request that is over sooner: that has its price.
    """

    calls: Calls
    gate: Gate
    record: Callable[[RequestRecord], None]
    routes: Sequence[Route]
    tracing: Tracing | None = None
    patience: Alarms = field(default_factory=lambda: Alarms(_WATCH_AFTER_S))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        began_s = time.perf_counter()
        path = scope["path"]
        record = RequestRecord(id=new_id(), request_id=_request_id(scope), at_s=time.time(), route=path[:256])
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
        caller = _Presence(receive)
        alarm = self.patience.set(caller.watch)
        try:
            await self.calls.answer(call, principal, HttpReply(send), record, is_fresh=is_fresh)
        except LimitExceeded as error:
            await _refuse(send, describe(error), record, scope["path"], self.calls.limit_headers(principal))
        except asyncio.CancelledError:
            if caller.is_why():
                raise ClientGone from None
            raise
        finally:
            self.patience.call_off(alarm)
            caller.end()

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


class _Presence:
    """Whether the caller of a request is still there: once told to `watch`, cancels its task when he leaves."""

    __slots__ = ("_is_gone", "_receive", "_task", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._is_gone = False

    def watch(self) -> None:
        """Cancel the task as soon as the caller leaves."""
        self._watcher = asyncio.create_task(_disconnected(self._receive))
        self._watcher.add_done_callback(self._leave)

    def end(self) -> None:
        """Stop watching."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()

    def is_why(self) -> bool:
        """Tell of a task that was cancelled whether that was for this reason alone; ask once."""
        return self._is_gone and self._task is not None and self._task.uncancel() == 0

    def _leave(self, watcher: asyncio.Task[None]) -> None:
        if self._watcher is not None and not watcher.cancelled() and self._task is not None:
            self._is_gone = True
            self._task.cancel()


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
    return str(given[:_MAX_REQUEST_ID], "latin-1") if given else new_id()
