"""Works on batches: claims one, asks its lines, keeps what is answered, writes its files."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import orjson

from mlaas.errors import NotFound, PlatformError
from mlaas.providers.base import Operation
from mlaas.router.batches.lines import ENDPOINTS, BatchLine, encode_answer, encode_unanswered, parse_lines
from mlaas.router.files.folder import FileFolder
from mlaas.router.files.routes import OUTPUT_PURPOSE
from mlaas.store.batches import Batch, BatchAnswer, BatchRepository, BatchStatus, FileRepository, StoredFile

_LEASE = timedelta(seconds=60)
_HEARTBEAT_S = 15.0
_POLL_S = 5.0
_MAX_TRIES = 6
_MAX_WAIT_S = 60.0
_BUSY = (429, 503, 529)
_UNANSWERED = {
    BatchStatus.EXPIRED: ("batch_expired", "the completion window ended before this request was answered"),
    BatchStatus.CANCELLED: ("batch_cancelled", "the batch was cancelled before this request was answered"),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Performed:
    """What became of one request.

    Attributes:
        status: HTTP status that a caller would have got.
        body: the answer or the error, JSON.
        request_id: what the logs know it by.
        retry_after_s: how long to wait, where the status asks to try again.
    """

    status: int
    body: bytes
    request_id: str
    retry_after_s: float | None = None


class Perform(Protocol):
    """Answers one request in the name of a key: its limits, its budget, its tenant."""

    async def __call__(self, operation: Operation, body: bytes, *, key_id: str, tenant: str) -> Performed:
        """Return what a caller with this key would get, errors too; it does not raise for them."""


class BatchExecutor:
    """Works on batches until it is cancelled.

    Args:
        batches: what is to be done.
        files: records of input and output files.
        folder: their contents.
        perform: asks a model.
        owner: name of this process among all that work on batches.
        concurrency: requests of one batch under way at once.
        num_workers: batches under way at once.
        clock: the time.
        sleep: waits between two tries of a request.
    """

    def __init__(
        self,
        *,
        batches: BatchRepository,
        files: FileRepository,
        folder: FileFolder,
        perform: Perform,
        owner: str,
        concurrency: int = 16,
        num_workers: int = 2,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._batches = batches
        self._files = files
        self._folder = folder
        self._perform = perform
        self._owners = [f"{owner}:{number}" for number in range(num_workers)]
        self._concurrency = concurrency
        self._clock = clock
        self._sleep = sleep
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """Look for work now; otherwise it is looked for every 5 seconds."""
        self._wanted.set()

    async def run(self) -> None:
        """Work until cancelled; a batch that is under way then is given back."""
        await asyncio.gather(*map(self._serve, self._owners))

    async def run_next(self, owner: str) -> bool:
        """Take the next batch, if there is one, and work on it to its end.

        Args:
            owner: who holds the lease.

        Returns:
            Whether there was one.

        Raises:
            PlatformError: the store cannot be reached, or a file cannot be written; another try goes on from here.
        """
        now = self._clock()
        batch = await asyncio.to_thread(self._batches.claim, owner=owner, now=now, until=now + _LEASE)
        if batch is None:
            return False
        try:
            await self._work(batch, owner)
        except _LeaseLost:
            logger.warning("batch %s was taken over by another worker", batch.id)
        finally:
            with suppress(PlatformError):
                await asyncio.to_thread(self._batches.release, batch.id, owner=owner)
        return True

    async def _serve(self, owner: str) -> None:
        while True:
            self._wanted.clear()
            try:
                if await self.run_next(owner):
                    continue
            except Exception as error:  # noqa: BLE001  # outermost loop of a worker: the batch is tried again
                logger.error("cannot work on batches, trying again: %s: %s", type(error).__name__, error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), _POLL_S)

    async def _work(self, batch: Batch, owner: str) -> None:
        lines, errors = await asyncio.to_thread(self._read_lines, batch)
        if errors:
            end = BatchStatus.CANCELLED if batch.status is BatchStatus.CANCELLING else BatchStatus.FAILED
            await self._advance(batch, owner, end, {"errors": errors, "ended_at": self._clock()})
            return
        if batch.status is BatchStatus.VALIDATING:
            begun = {"num_total": len(lines), "in_progress_at": self._clock()}
            batch = await self._advance(batch, owner, BatchStatus.IN_PROGRESS, begun)
        answered = await asyncio.to_thread(self._batches.answered_lines, batch.id)
        missing = [line for line in lines if line.number not in answered]
        if batch.status is BatchStatus.IN_PROGRESS:
            batch = await self._answer(batch, owner, missing)
        if batch.status is BatchStatus.IN_PROGRESS:
            batch = await self._advance(batch, owner, BatchStatus.FINALIZING, {"finalizing_at": self._clock()})
        await self._finish(batch, owner, lines)

    def _read_lines(self, batch: Batch) -> tuple[list[BatchLine], list[dict[str, Any]]]:
        try:
            content = self._folder.read(batch.input_file_id)
        except NotFound as error:
            return [], [{"code": error.code, "message": error.message, "line": None, "param": "input_file_id"}]
        return parse_lines(content, endpoint=batch.endpoint)

    async def _answer(self, batch: Batch, owner: str, lines: Sequence[BatchLine]) -> Batch:
        """Ask all lines, a bounded number at a time, until the batch is cancelled or its window ends."""
        todo = iter(lines)
        running: set[asyncio.Task[BatchAnswer]] = set()
        try:
            while batch.status is BatchStatus.IN_PROGRESS:
                left_s = (batch.expires_at - self._clock()).total_seconds()
                if left_s <= 0:
                    break
                while len(running) < self._concurrency and (line := next(todo, None)) is not None:
                    running.add(asyncio.create_task(self._ask(batch, line)))
                if not running:
                    break
                timeout_s = min(_HEARTBEAT_S, left_s)
                done, running = await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                batch = await self._record(batch, owner, [task.result() for task in done])
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return batch

    async def _ask(self, batch: Batch, line: BatchLine) -> BatchAnswer:
        """Ask one line, again while its target or a limit asks to wait a little; a spent budget asks for hours."""
        for number in range(_MAX_TRIES):
            performed = await self._perform_safely(batch, line)
            wait_s = performed.retry_after_s if performed.retry_after_s is not None else 2.0**number
            if performed.status not in _BUSY or number == _MAX_TRIES - 1 or wait_s > _MAX_WAIT_S:
                break
            await self._sleep(wait_s)
        text = encode_answer(
            line, batch_id=batch.id, request_id=performed.request_id, status=performed.status, body=performed.body
        )
        return BatchAnswer(line=line.number, is_error=performed.status >= 400, text=text)

    async def _perform_safely(self, batch: Batch, line: BatchLine) -> Performed:
        operation = ENDPOINTS[batch.endpoint]
        try:
            return await self._perform(operation, line.body, key_id=batch.key_id, tenant=batch.tenant)
        except Exception as error:  # noqa: BLE001  # the outermost frame of a line's request
            # A bug met by one line must not keep all the others from their answers, for ever. Its text may be a prompt.
            logger.error("line %d of %s failed: %s", line.number, batch.id, type(error).__name__)
            message = f"the gateway failed: {type(error).__name__}"
            return Performed(status=500, body=_encode_error("internal_error", message), request_id="")

    async def _finish(self, batch: Batch, owner: str, lines: Sequence[BatchLine]) -> None:
        answered = await asyncio.to_thread(self._batches.answered_lines, batch.id)
        missing = [line for line in lines if line.number not in answered]
        if batch.status is BatchStatus.CANCELLING:
            end = BatchStatus.CANCELLED
        else:
            end = BatchStatus.EXPIRED if missing else BatchStatus.COMPLETED
        output_id, error_id = await asyncio.to_thread(self._write_files, batch, end, missing)
        changes = {
            "output_file_id": output_id,
            "error_file_id": error_id,
            "ended_at": self._clock(),
            "num_total": len(lines),
            "num_failed": batch.num_failed + len(missing),
        }
        await self._advance(batch, owner, end, changes)

    def _write_files(
        self, batch: Batch, end: BatchStatus, missing: Sequence[BatchLine]
    ) -> tuple[str | None, str | None]:
        """Write the output and the error file; again does no harm, because their ids follow from the batch's."""
        unanswered = [
            BatchAnswer(
                line=line.number,
                is_error=True,
                text=encode_unanswered(line, batch_id=batch.id, code=_UNANSWERED[end][0], message=_UNANSWERED[end][1]),
            )
            for line in missing
        ]
        output_id = self._write_file(batch, "output", self._texts(batch, is_error=False, more=()))
        error_id = self._write_file(batch, "error", self._texts(batch, is_error=True, more=unanswered))
        return output_id, error_id

    def _texts(self, batch: Batch, *, is_error: bool, more: Sequence[BatchAnswer]) -> Iterator[bytes]:
        for answer in heapq.merge(self._batches.answers(batch.id), more, key=lambda each: each.line):
            if answer.is_error is is_error:
                yield answer.text.encode() + b"\n"

    def _write_file(self, batch: Batch, kind: str, pieces: Iterator[bytes]) -> str | None:
        file_id = f"file-{batch.id.removeprefix('batch_')}-{kind}"
        num_bytes = self._folder.write(file_id, pieces)
        if not num_bytes:
            self._folder.remove(file_id)
            return None
        file = StoredFile(
            id=file_id,
            tenant=batch.tenant,
            filename=f"{batch.id}_{kind}.jsonl",
            purpose=OUTPUT_PURPOSE,
            num_bytes=num_bytes,
            created_at=self._clock(),
        )
        self._files.put(file)
        return file_id

    async def _record(self, batch: Batch, owner: str, answers: Sequence[BatchAnswer]) -> Batch:
        now = self._clock()
        found = await asyncio.to_thread(
            self._batches.record, batch.id, answers, owner=owner, now=now, until=now + _LEASE
        )
        if found is None:
            raise _LeaseLost
        return found

    async def _advance(self, batch: Batch, owner: str, status: BatchStatus, changes: Mapping[str, Any]) -> Batch:
        """Bring the batch to a status; when it has got another one meanwhile, return it as it is."""
        found = await asyncio.to_thread(
            self._batches.advance,
            batch.id,
            owner=owner,
            now=self._clock(),
            before=batch.status,
            after=status,
            changes=changes,
        )
        return found or await self._record(batch, owner, [])


class _LeaseLost(Exception):
    """Another worker has the batch."""


def _encode_error(code: str, message: str) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "server_error", "param": None, "code": code}})
