"""Everything that answers calls to a model, as the application sees it: the router, with stored responses on top."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mlaas.auth.types import Principal
from mlaas.errors import MlaasError
from mlaas.providers.base import Call, Failure, FieldError, Operation, ProviderFailed
from mlaas.router.asgi import Headers, describe
from mlaas.router.batches.executor import Performed
from mlaas.router.calls import RouterCalls
from mlaas.router.dialects.build import DIALECTS
from mlaas.router.record import RequestRecord, new_id
from mlaas.router.reply import MemoryReply, Reply
from mlaas.router.request import parse_call
from mlaas.router.responses.service import ResponseService


@dataclass(frozen=True, kw_only=True)
class Front:
    """Answers callers, and those who ask in a caller's name after its request is over.

    Attributes:
        router: answers by the configuration in force.
        responses: keeps responses.
        find_principal: returns who a key's id belongs to now; raises `AuthenticationError` when it is in force no more.
        record: takes what each request was that has no caller waiting.
    """

    router: RouterCalls
    responses: ResponseService
    find_principal: Callable[[str], Principal]
    record: Callable[[RequestRecord], None]

    async def answer(
        self, call: Call, principal: Principal, reply: Reply, record: RequestRecord, *, is_fresh: bool
    ) -> None:
        """Answer a call.

        Raises:
            MlaasError: it is refused.
            ProviderFailed: nobody could answer, and nothing has been sent.
        """
        if call.operation is not Operation.RESPONSES:
            await self.router.answer(call, principal, reply, record, is_fresh=is_fresh)
            return

        async def run(call: Call, reply: Reply) -> None:
            await self.router.answer(call, principal, reply, record, is_fresh=is_fresh)

        async def run_in_background(call: Call, reply: Reply) -> None:
            await self._recorded(call, principal, reply, request_id=record.request_id)

        await self.responses.answer(
            call, principal=principal, reply=reply, run=run, run_in_background=run_in_background
        )
        if record.target is None:
            # It goes on in the background as a request of its own, and that one is accounted for.
            record.status, record.operation = 200, ""

    def limit_headers(self, principal: Principal) -> Headers:
        """Return what a refused caller is told of its limits."""
        return self.router.limit_headers(principal)

    async def perform(self, operation: Operation, body: bytes, *, key_id: str, tenant: str) -> Performed:
        """Return what a caller with this key would get, errors too."""
        dialect, reply, request_id = DIALECTS[operation], MemoryReply(), new_id()
        try:
            principal, call = self.find_principal(key_id), parse_call(dialect, body, {})

            async def run(call: Call, reply: Reply) -> None:
                await self._recorded(call, principal, reply, request_id=request_id)

            if operation is not Operation.RESPONSES:
                await run(call, reply)
            elif call.fields.get("background"):
                raise FieldError("background", "a batch runs in the background already; leave out 'background'")
            else:
                await self.responses.answer(call, principal=principal, reply=reply, run=run, run_in_background=run)
        except (MlaasError, ProviderFailed) as error:
            failure = describe(error) if isinstance(error, MlaasError) else error.failure
            return Performed(
                status=failure.status,
                body=dialect.encode_error(failure),
                request_id=request_id,
                retry_after_s=failure.retry_after_s,
            )
        return Performed(status=reply.status, body=reply.body, request_id=request_id)

    async def _recorded(self, call: Call, principal: Principal, reply: Reply, *, request_id: str = "") -> None:
        """Answer a call as a request of its own."""
        began_s = time.perf_counter()
        record = RequestRecord(
            id=new_id(),
            request_id=request_id or new_id(),
            at_s=time.time(),
            route=f"/v1/{call.operation.value}",
            operation=call.operation.value,
            key_id=principal.key_id,
            tenant=principal.tenant,
            model=call.model[:300],
            is_stream=call.is_stream,
        )
        try:
            await self.router.answer(call, principal, reply, record, is_fresh=False)
        except (MlaasError, ProviderFailed) as error:
            failure: Failure = describe(error) if isinstance(error, MlaasError) else error.failure
            record.status, record.error = failure.status, failure.code
            raise
        finally:
            record.duration_ms = round((time.perf_counter() - began_s) * 1000, 3)
            self.record(record)
