"""The gateway's routes, as one plain ASGI callable: no framework is on the way of a request."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass

import orjson

from mlaas.errors import MlaasError, NotFound
from mlaas.providers.base import Failure, FailureKind, Operation, ProviderFailed
from mlaas.providers.vllm import LOCAL
from mlaas.router.access_log import AccessEntry, AccessLog
from mlaas.router.asgi import Headers, Receive, Scope, Send, describe, header, send_failure, send_json
from mlaas.router.dispatch import Dispatcher
from mlaas.router.gate import Gate
from mlaas.router.request import ClientGone, parse_call, read_body

_CALLS = {f"/v1/{operation.value}": operation for operation in Operation}
_MODELS = "/v1/models"
_METHODS = {_MODELS: "GET", "/healthz": "GET", **dict.fromkeys(_CALLS, "POST")}
_MAX_REQUEST_ID = 128
_INTERNAL = Failure(
    kind=FailureKind.FAILED,
    status=500,
    code="internal_error",
    message="the gateway failed; its log has the details under the id in x-request-id",
    type="server_error",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GatewayApp:
    """Answers the gateway's HTTP requests.

    Attributes:
        dispatcher: takes calls to a model.
        gate: knows who is calling.
        access_log: takes one entry for each request.
        started_at_s: wall clock, for `created` in the list of models.
    """

    dispatcher: Dispatcher
    gate: Gate
    access_log: AccessLog
    started_at_s: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        began_s = time.perf_counter()
        entry = AccessEntry(request_id=_request_id(scope), at_s=time.time(), route=scope["path"][:256])
        try:
            await self._answer(scope, receive, send, entry)
        except MlaasError as error:
            await _refuse(send, describe(error), entry)
        except ProviderFailed as error:
            await _refuse(send, error.failure, entry)
        except ClientGone:
            entry.error = "client_gone"
        except Exception as error:
            # The outermost frame of a request: a bug must not leave its caller without an answer.
            logger.error("request %s failed: %s%s", entry.request_id, type(error).__name__, _frames(error))
            if entry.status == 200:
                raise
            await _refuse(send, _INTERNAL, entry)
        except asyncio.CancelledError:
            entry.error = "client_gone"
            raise
        finally:
            entry.duration_ms = round((time.perf_counter() - began_s) * 1000, 3)
            self.access_log.record(entry)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, entry: AccessEntry) -> None:
        path, method = scope["path"], scope["method"]
        operation = _CALLS.get(path)
        if operation is not None and method == "POST":
            entry.key_id = self.gate.admit(scope).key_id
            call = parse_call(operation, await read_body(scope, receive))
            entry.model, entry.is_stream = call.model[:300], call.is_stream
            await _until_disconnect(receive, self.dispatcher.answer(call, send, entry))
            return
        allowed = _METHODS.get(path) or ("GET" if path.startswith(f"{_MODELS}/") else None)
        if allowed is None:
            raise NotFound("unknown_route", f"there is no {path[:200]}; there are: {', '.join(sorted(_METHODS))}")
        if method != allowed:
            await _refuse(send, _wrong_method(method, path, allowed), entry, [(b"allow", allowed.encode())])
            return
        if path == "/healthz":
            value = self._health()
        else:
            entry.key_id = self.gate.admit(scope).key_id
            value = self._list() if path == _MODELS else self._describe(path.removeprefix(f"{_MODELS}/"))
        entry.status = 200
        await send_json(send, 200, orjson.dumps(value))

    def _health(self) -> dict[str, object]:
        fleet, catalog = self.dispatcher.fleet, self.dispatcher.catalog
        now_s = time.monotonic()
        models = {}
        for name in catalog.names(fleet.local_models):
            targets = catalog.resolve(name, local_models=fleet.local_models).targets
            models[name] = "up" if any(fleet.is_up(target, now_s=now_s) for target in targets) else "down"
        return {"status": "ok", "models": models}

    def _list(self) -> dict[str, object]:
        names = self.dispatcher.catalog.names(self.dispatcher.fleet.local_models)
        return {"object": "list", "data": [self._describe(name) for name in names]}

    def _describe(self, name: str) -> dict[str, object]:
        route = self.dispatcher.catalog.resolve(name, local_models=self.dispatcher.fleet.local_models)
        provider = route.targets[0].provider
        owner = "mlaas" if route.is_alias or provider == LOCAL else provider
        return {"id": name, "object": "model", "created": int(self.started_at_s), "owned_by": owner}


async def _until_disconnect(receive: Receive, work: Awaitable[None]) -> None:
    """Await `work`, and cancel it as soon as the caller leaves.

    Raises:
        ClientGone: the caller has left.
    """
    task = asyncio.current_task()
    is_gone = is_over = False

    def leave(done: asyncio.Task[None]) -> None:
        nonlocal is_gone
        if not (is_over or done.cancelled()) and task is not None:
            is_gone = True
            task.cancel()

    watch = asyncio.create_task(_disconnected(receive))
    watch.add_done_callback(leave)
    try:
        await work
    except asyncio.CancelledError:
        if is_gone and task is not None and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        is_over = True
        watch.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: Send, failure: Failure, entry: AccessEntry, extra: Headers | None = None) -> None:
    entry.status, entry.error = failure.status, failure.code
    await send_failure(send, failure, extra)


def _frames(error: Exception) -> str:
    """Return where an error happened, without its text, which may hold a part of a prompt."""
    return "".join(
        f"\n  {frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
    )


def _wrong_method(method: str, path: str, allowed: str) -> Failure:
    return Failure(
        kind=FailureKind.REJECTED,
        status=405,
        code="method_not_allowed",
        message=f"{path} takes {allowed}, not {method}",
        type="invalid_request_error",
    )


def _request_id(scope: Scope) -> str:
    """Return the caller's or the ingress's id of the request, so that all logs agree on it."""
    given = header(scope, b"x-request-id")
    return str(given[:_MAX_REQUEST_ID], "latin-1") if given else uuid.uuid4().hex
