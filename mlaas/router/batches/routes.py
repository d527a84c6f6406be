"""`/v1/batches`: create, look at, list, cancel.

Source: OpenAI API reference, batches; types of its Python SDK.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from mlaas.errors import InvalidRequest
from mlaas.providers.base import FieldError
from mlaas.router.batches.lines import ENDPOINTS
from mlaas.router.files.routes import PURPOSE, caller_of, encode_page, parse_page
from mlaas.router.routes import Request, Result, Route, as_json, route
from mlaas.store.batches import Batch, BatchRepository, BatchStatus, FileRepository

_WINDOW = re.compile(r"([1-9]\d{0,2})h")
_MAX_WINDOW_H = 168
_FIELDS = ("input_file_id", "endpoint", "completion_window", "metadata")
_MAX_PAGE = 100
_DEFAULT_PAGE = 20
_MAX_METADATA = 16
_MAX_KEY_CHARS, _MAX_VALUE_CHARS = 64, 512
_ENDS = {
    BatchStatus.COMPLETED: "completed_at",
    BatchStatus.FAILED: "failed_at",
    BatchStatus.EXPIRED: "expired_at",
    BatchStatus.CANCELLED: "cancelled_at",
}


def batch_routes(batches: BatchRepository, files: FileRepository, *, wake: Callable[[], None]) -> list[Route]:
    """Return the routes of `/v1/batches`.

    Args:
        batches: where they are kept.
        files: where their input is.
        wake: called when there is something to do.
    """
    handlers = _Handlers(batches=batches, files=files, wake=wake)
    return [
        route("POST", "/v1/batches", handlers.create),
        route("GET", "/v1/batches", handlers.list),
        route("POST", "/v1/batches/{id}/cancel", handlers.cancel),
        route("GET", "/v1/batches/{id}", handlers.retrieve),
    ]


@dataclass(frozen=True, kw_only=True)
class _Handlers:
    batches: BatchRepository
    files: FileRepository
    wake: Callable[[], None]

    async def create(self, request: Request) -> Result:
        caller = caller_of(request)
        fields = _parse_fields(request.body)
        window = _parse_window(fields.get("completion_window"))
        endpoint, file_id = fields.get("endpoint"), fields.get("input_file_id")
        if endpoint not in ENDPOINTS:
            raise FieldError("endpoint", f"'endpoint' must be one of {', '.join(ENDPOINTS)}")
        if not isinstance(file_id, str):
            raise FieldError("input_file_id", "'input_file_id' must be the id of an uploaded file")
        file = await asyncio.to_thread(self.files.get, file_id, tenant=caller.tenant)
        if file.purpose != PURPOSE:
            raise FieldError("input_file_id", f"the file {file_id} has the purpose {file.purpose!r}, not {PURPOSE!r}")
        now = datetime.now(UTC)
        batch = Batch(
            id=f"batch_{uuid.uuid4().hex}",
            tenant=caller.tenant,
            key_id=caller.key_id,
            endpoint=endpoint,
            input_file_id=file_id,
            completion_window=fields["completion_window"],
            status=BatchStatus.VALIDATING,
            created_at=now,
            expires_at=now + window,
            metadata=_parse_metadata(fields.get("metadata")),
        )
        await asyncio.to_thread(self.batches.add, batch)
        self.wake()
        return as_json(encode_batch(batch))

    async def list(self, request: Request) -> Result:
        page = parse_page(request.query, default=_DEFAULT_PAGE, most=_MAX_PAGE)
        tenant = caller_of(request).tenant
        found = await asyncio.to_thread(self.batches.list, tenant=tenant, after=page.after, limit=page.limit + 1)
        return as_json(encode_page([encode_batch(batch) for batch in found], limit=page.limit))

    async def retrieve(self, request: Request) -> Result:
        tenant = caller_of(request).tenant
        return as_json(encode_batch(await asyncio.to_thread(self.batches.get, request.path[0], tenant=tenant)))

    async def cancel(self, request: Request) -> Result:
        tenant, now = caller_of(request).tenant, datetime.now(UTC)
        batch = await asyncio.to_thread(self.batches.cancel, request.path[0], tenant=tenant, now=now)
        self.wake()
        return as_json(encode_batch(batch))


def encode_batch(batch: Batch) -> dict[str, Any]:
    """Return a batch in OpenAI's shape."""
    ends = {name: _seconds(batch.ended_at) if status is batch.status else None for status, name in _ENDS.items()}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status.value,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": _seconds(batch.created_at),
        "in_progress_at": _seconds(batch.in_progress_at),
        "expires_at": _seconds(batch.expires_at),
        "finalizing_at": _seconds(batch.finalizing_at),
        "cancelling_at": _seconds(batch.cancelling_at),
        **ends,
        "request_counts": {"total": batch.num_total, "completed": batch.num_completed, "failed": batch.num_failed},
        "metadata": batch.metadata,
    }


def _parse_fields(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("invalid_json", f"the request body is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("invalid_json", "the request body must be a JSON object")
    for name, value in fields.items():
        if name not in _FIELDS and value is not None:
            raise FieldError(name, f"{name!r} is not supported for batches; leave it out")
    return fields


def _parse_window(value: object) -> timedelta:
    match = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) > _MAX_WINDOW_H:
        raise FieldError("completion_window", f"'completion_window' must be hours from '1h' to '{_MAX_WINDOW_H}h'")
    return timedelta(hours=int(match[1]))


def _parse_metadata(value: object) -> Mapping[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > _MAX_METADATA:
        raise FieldError("metadata", f"'metadata' must be an object with at most {_MAX_METADATA} pairs")
    for key, text in value.items():
        if len(key) > _MAX_KEY_CHARS or not isinstance(text, str) or len(text) > _MAX_VALUE_CHARS:
            why = f"keys have up to {_MAX_KEY_CHARS} characters, values are strings of up to {_MAX_VALUE_CHARS}"
            raise FieldError("metadata", f"'metadata' is not as it should be: {why}")
    return value


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp())
