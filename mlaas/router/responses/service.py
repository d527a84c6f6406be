"""Keeps responses, runs those in the background, and ends what nobody runs any more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import orjson

from mlaas.auth.types import Principal
from mlaas.errors import Conflict, InvalidRequest, MlaasError, NotFound, PlatformError
from mlaas.providers.base import Call, FieldError, ProviderFailed
from mlaas.router.dialects.responses_answer import describe_response, new_id
from mlaas.router.reply import MemoryReply, Reply
from mlaas.router.responses.conversation import continue_conversation, read_input, with_fields
from mlaas.router.responses.input_items import list_input_items, page_of
from mlaas.router.responses.keeping import KeepingReply
from mlaas.store.responses import ACTIVE, StoredResponse

RETENTION: Final = timedelta(days=30)
"""Source: OpenAI, data retention of the Responses API."""
ABANDONED_AFTER: Final = timedelta(seconds=60)
"""A process that has not been seen for so long is taken for dead; clocks of hosts may differ by some of it."""
MAX_RUNS: Final = 256
"""Responses that one process runs in the background at the same time."""
MAX_TURNS: Final = 1000
"""Length of a conversation."""
_SWEEP_S: Final = 10.0

_CODES: Final = {400: "invalid_prompt", 402: "rate_limit_exceeded", 413: "invalid_prompt", 429: "rate_limit_exceeded"}

Run = Callable[[Call, Reply], Awaitable[None]]
"""Answers a call into a reply, like any other request of its caller."""

_STOPPED: Final = "the gateway was stopped while the response ran; ask again"
_ABANDONED: Final = "the gateway's process that ran the response has ended; ask again"
_BROKEN: Final = "the gateway failed; its log has the details under the response's id"

logger = logging.getLogger(__name__)


class ResponseStore(Protocol):
    """Where responses are kept. All of it blocks, and raises `PlatformError` when the store cannot be reached."""

    def add(self, response: StoredResponse) -> None:
        """Store a new response; `Conflict` when the id is taken."""

    def get(self, response_id: str, *, tenant: str) -> StoredResponse:
        """Return a tenant's response, or raise `NotFound`."""

    def list_conversation(self, response_id: str, *, tenant: str, depth: int) -> Sequence[StoredResponse]:
        """Return a response and those that it continues, oldest first, or raise `NotFound`."""

    def delete(self, response_id: str, *, tenant: str) -> None:
        """Remove a tenant's response, or raise `NotFound`."""

    def end(self, response_id: str, *, status: str, answer: str, provider: str = "") -> bool:
        """Write how a response ended, unless it has ended already; tell whether this is how."""

    def touch(self, response_ids: Collection[str], *, at: datetime) -> frozenset[str]:
        """Say that responses are worked on, and return those that nobody else has ended."""

    def list_abandoned(self, *, before: datetime) -> Sequence[StoredResponse]:
        """Return the active responses whose owner has not been seen since."""

    def purge(self, *, before: datetime) -> int:
        """Remove the responses that are older."""


@dataclass(kw_only=True)
class ResponseService:
    """What `/v1/responses` needs beside an answer.

    Attributes:
        store: where responses are kept.
        owner: name of this process, of no other one before or after it.
    """

    store: ResponseStore
    owner: str
    _runs: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _swept_s: float = float("-inf")

    async def answer(self, call: Call, *, principal: Principal, reply: Reply, run: Run, run_in_background: Run) -> None:
        """Answer a call of the Responses API.

        Args:
            call: what the caller asks.
            principal: who asks.
            reply: the caller's.
            run: answers a call now.
            run_in_background: the same after this request is over, as a request of its own.

        Raises:
            FieldError: `previous_response_id`, `store` or `stream` cannot be honoured.
            PlatformError: the store cannot be reached, or too many responses run.
            ProviderFailed: as `run` does, which may raise more.
        """
        if call.fields.get("background"):
            await reply.whole(200, await self.start(call, principal=principal, run=run_in_background), [])
            return
        call, reply = await self.prepare(call, principal=principal, reply=reply)
        await run(call, reply)

    async def prepare(self, call: Call, *, principal: Principal, reply: Reply) -> tuple[Call, Reply]:
        """Return the call with its whole conversation, and a reply that keeps the answer.

        Raises:
            FieldError: `previous_response_id` is not a response of this tenant that can be continued.
            PlatformError: the conversation cannot be read now.
        """
        asked, previous_id = call, call.fields.get("previous_response_id")
        is_kept = call.fields.get("store") is not False
        if previous_id is not None:
            call = await self._continue(call, previous_id, tenant=principal.tenant)
        if not is_kept and previous_id is None:
            return call, reply

        async def keep(response: dict[str, Any], provider: str) -> None:
            await self._keep(asked, response, provider, tenant=principal.tenant)

        return call, KeepingReply(reply, keep=keep if is_kept else None, previous_id=previous_id)

    async def start(self, call: Call, *, principal: Principal, run: Run) -> bytes:
        """Begin to run a call in the background and return its response, which is in progress.

        Args:
            call: a request with `background: true`.
            principal: who asks.
            run: answers it; awaited in a task of its own.

        Raises:
            FieldError: the response could not be asked for later, or not be continued.
            PlatformError: the store cannot be reached, or too many responses run.
        """
        for name, refused in (("store", call.fields.get("store") is False), ("stream", call.is_stream)):
            if refused:
                raise FieldError(name, f"a response in the background is asked for later; leave {name!r} out")
        if len(self._runs) >= MAX_RUNS:
            raise PlatformError("too_many_background_responses", f"{MAX_RUNS} responses run here already; try again")
        now = datetime.now(UTC)
        previous_id = call.fields.get("previous_response_id")
        whole = with_fields(call, {}, without=("background",))
        if previous_id is not None:
            whole = await self._continue(whole, previous_id, tenant=principal.tenant)
        response = describe_response(call, id=new_id("resp"), created_at_s=int(now.timestamp()), status="in_progress")
        stored = StoredResponse(
            id=response["id"],
            tenant=principal.tenant,
            previous_id=previous_id,
            status="in_progress",
            provider="",
            items=orjson.dumps(read_input(call.fields)).decode(),
            answer=orjson.dumps(response).decode(),
            created_at=now,
            owner=self.owner,
            seen_at=now,
        )
        await asyncio.to_thread(self.store.add, stored)
        task = asyncio.create_task(self._run(response, whole, run))
        self._runs[stored.id] = task
        task.add_done_callback(lambda _: self._runs.pop(stored.id, None))
        return orjson.dumps(response)

    async def retrieve(self, response_id: str, *, tenant: str) -> bytes:
        """Return a response as it is now.

        Raises:
            NotFound: the tenant has no response of this id.
            PlatformError: the store cannot be reached.
        """
        return (await asyncio.to_thread(self.store.get, response_id, tenant=tenant)).answer.encode()

    async def list_input_items(self, response_id: str, *, tenant: str, query: Mapping[str, str]) -> bytes:
        """Return a page of what a response was made from.

        Raises:
            FieldError: a parameter of the query has no such value.
            NotFound: the tenant has no response of this id, or one that it continues has been deleted.
            PlatformError: the store cannot be reached.
        """
        turns = await asyncio.to_thread(self.store.list_conversation, response_id, tenant=tenant, depth=MAX_TURNS)
        return orjson.dumps(page_of(list_input_items(turns), query))

    async def cancel(self, response_id: str, *, tenant: str) -> bytes:
        """End a response that runs in the background; one that has ended already stays as it is.

        Raises:
            NotFound: the tenant has no response of this id.
            InvalidRequest: it does not run in the background.
            PlatformError: the store cannot be reached.
        """
        stored = await asyncio.to_thread(self.store.get, response_id, tenant=tenant)
        if stored.owner is None:
            why = f"response {response_id} was not created with background: true; only such a one can be cancelled"
            raise InvalidRequest("response_not_cancellable", why)
        if stored.status not in ACTIVE:
            return stored.answer.encode()
        answer = orjson.dumps({**orjson.loads(stored.answer), "status": "cancelled"})
        if not await asyncio.to_thread(self.store.end, response_id, status="cancelled", answer=answer.decode()):
            return await self.retrieve(response_id, tenant=tenant)
        if response_id in self._runs:
            self._runs[response_id].cancel()
        return answer

    async def delete(self, response_id: str, *, tenant: str) -> bytes:
        """Remove a response; one that still runs is cancelled.

        Raises:
            NotFound: the tenant has no response of this id.
            PlatformError: the store cannot be reached.
        """
        await asyncio.to_thread(self.store.delete, response_id, tenant=tenant)
        if response_id in self._runs:
            self._runs[response_id].cancel()
        return orjson.dumps({"id": response_id, "object": "response", "deleted": True})

    async def tend(self) -> None:
        """Say that this process is alive, cancel what was cancelled elsewhere, and now and then tidy up.

        Raises:
            PlatformError: the store cannot be reached.
        """
        now = datetime.now(UTC)
        if running := dict(self._runs):
            wanted = await asyncio.to_thread(self.store.touch, list(running), at=now)
            for response_id, task in running.items():
                if response_id not in wanted:
                    task.cancel()
        if time.monotonic() - self._swept_s >= _SWEEP_S:
            self._swept_s = time.monotonic()
            await asyncio.to_thread(self._sweep, now)

    async def stop(self) -> None:
        """Cancel what still runs, and write that it failed."""
        running = dict(self._runs)
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)

    async def _continue(self, call: Call, previous_id: str, *, tenant: str) -> Call:
        try:
            turns = await asyncio.to_thread(self.store.list_conversation, previous_id, tenant=tenant, depth=MAX_TURNS)
        except NotFound as error:
            raise FieldError("previous_response_id", error.message) from error
        return continue_conversation(call, turns)

    async def _keep(self, asked: Call, response: dict[str, Any], provider: str, *, tenant: str) -> None:
        """Store a response that has ended. A store that is out costs its caller the copy, not the answer."""
        stored = StoredResponse(
            id=response["id"],
            tenant=tenant,
            previous_id=asked.fields.get("previous_response_id"),
            status=response.get("status") or "completed",
            provider=provider,
            items=orjson.dumps(read_input(asked.fields)).decode(),
            answer=orjson.dumps(response).decode(),
            created_at=datetime.now(UTC),
        )
        try:
            # An answer from the cache has been stored the first time.
            with suppress(Conflict):
                await asyncio.to_thread(self.store.add, stored)
        except PlatformError as error:
            logger.warning("response %s is not stored: %s", stored.id, error)

    async def _run(self, response: dict[str, Any], call: Call, run: Run) -> None:
        """Answer a call and write how it ended, unless it was ended meanwhile."""
        ended, answered_by = _fail(response, _BROKEN), ""

        async def take(answer: dict[str, Any], provider: str) -> None:
            nonlocal ended, answered_by
            ours = {name: response[name] for name in ("id", "background", "metadata", "previous_response_id", "store")}
            ended, answered_by = {**answer, **ours}, provider

        try:
            await run(call, KeepingReply(MemoryReply(), keep=take, previous_id=None))
        except MlaasError as error:
            ended = _fail(response, error.message, status=error.status)
        except ProviderFailed as error:
            ended = _fail(response, error.failure.message, status=error.failure.status)
        except asyncio.CancelledError:
            # Also when it was cancelled by its caller, whose word is in the store already and stays.
            ended = _fail(response, _STOPPED)
        except Exception as error:  # noqa: BLE001  # outermost frame of a run
            logger.error("background response %s failed: %s", response["id"], type(error).__name__)
            ended = _fail(response, _BROKEN)
        try:
            await asyncio.to_thread(self._end, ended, answered_by)
        except PlatformError as error:
            logger.error("how background response %s ended is not stored: %s", response["id"], error)

    def _end(self, response: dict[str, Any], provider: str) -> None:
        answer = orjson.dumps(response).decode()
        self.store.end(response["id"], status=response["status"], answer=answer, provider=provider)

    def _sweep(self, now: datetime) -> None:
        for stored in self.store.list_abandoned(before=now - ABANDONED_AFTER):
            self._end(_fail(orjson.loads(stored.answer), _ABANDONED), "")
            logger.warning("background response %s has failed: its process %s is gone", stored.id, stored.owner)
        self.store.purge(before=now - RETENTION)


def _fail(response: dict[str, Any], message: str, *, status: int = 500) -> dict[str, Any]:
    code = _CODES.get(status, "server_error")
    return {**response, "status": "failed", "error": {"code": code, "message": message}}
