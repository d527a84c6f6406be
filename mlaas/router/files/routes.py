"""`/v1/files`: upload, list, look at, download, delete.

Source: OpenAI API reference, files; types of its Python SDK.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from mlaas.auth.types import Principal
from mlaas.errors import AuthenticationError, PlatformError
from mlaas.providers.base import FieldError
from mlaas.router.files.folder import FileFolder
from mlaas.router.files.multipart import parse_form
from mlaas.router.routes import Request, Result, Route, as_json, route
from mlaas.store.batches import FileRepository, StoredFile

MAX_FILE_BYTES: Final = 100 * 1024 * 1024
"""Longer files are refused."""
PURPOSE: Final = "batch"
"""The only purpose of uploaded files."""
OUTPUT_PURPOSE: Final = "batch_output"
"""Of files that batches write."""
_FORM_BYTES = 64 * 1024
_MAX_PAGE = 10_000
_DEFAULT_PAGE = 100


def file_routes(files: FileRepository, folder: FileFolder) -> list[Route]:
    """Return the routes of `/v1/files`."""
    handlers = _Handlers(files=files, folder=folder)
    return [
        route("POST", "/v1/files", handlers.upload, max_body_bytes=MAX_FILE_BYTES + _FORM_BYTES),
        route("GET", "/v1/files", handlers.list),
        route("GET", "/v1/files/{id}/content", handlers.content),
        route("GET", "/v1/files/{id}", handlers.retrieve),
        route("DELETE", "/v1/files/{id}", handlers.delete),
    ]


@dataclass(frozen=True, kw_only=True)
class _Handlers:
    files: FileRepository
    folder: FileFolder

    async def upload(self, request: Request) -> Result:
        form = parse_form(request.headers.get("content-type", ""), request.body)
        if unknown := sorted(form.keys() - {"file", "purpose"}):
            raise FieldError(unknown[0], f"{unknown[0]!r} is not supported for files; leave it out")
        if "purpose" not in form or form["purpose"].content != PURPOSE.encode():
            raise FieldError("purpose", f"'purpose' must be {PURPOSE!r}: batches are what files are for here")
        if "file" not in form or form["file"].filename is None:
            raise FieldError("file", "'file' is missing, or has no file name")
        upload = form["file"]
        if len(upload.content) > MAX_FILE_BYTES:
            raise FieldError("file", f"'file' is over {MAX_FILE_BYTES:,} bytes; split it into several batches")
        file_id, tenant = f"file-{uuid.uuid4().hex}", caller_of(request).tenant
        await asyncio.to_thread(self.folder.write, file_id, [upload.content])
        file = StoredFile(
            id=file_id,
            tenant=tenant,
            filename=str(upload.filename)[:255],
            purpose=PURPOSE,
            num_bytes=len(upload.content),
            created_at=datetime.now(UTC),
        )
        try:
            await asyncio.to_thread(self.files.put, file)
        except PlatformError:
            await asyncio.to_thread(self.folder.remove, file_id)
            raise
        return as_json(encode_file(file))

    async def list(self, request: Request) -> Result:
        page = parse_page(request.query, default=_DEFAULT_PAGE, most=_MAX_PAGE, known=("purpose",))
        found = await asyncio.to_thread(
            self.files.list,
            tenant=caller_of(request).tenant,
            purpose=request.query.get("purpose"),
            after=page.after,
            limit=page.limit + 1,
        )
        return as_json(encode_page([encode_file(file) for file in found], limit=page.limit))

    async def retrieve(self, request: Request) -> Result:
        return as_json(encode_file(await self._find(request)))

    async def content(self, request: Request) -> Result:
        file = await self._find(request)
        body = await asyncio.to_thread(self.folder.read, file.id)
        return Result(body=body, content_type=b"application/octet-stream")

    async def delete(self, request: Request) -> Result:
        file = await self._find(request)
        await asyncio.to_thread(self.files.delete, file.id, tenant=file.tenant)
        await asyncio.to_thread(self.folder.remove, file.id)
        return as_json({"id": file.id, "object": "file", "deleted": True})

    async def _find(self, request: Request) -> StoredFile:
        return await asyncio.to_thread(self.files.get, request.path[0], tenant=caller_of(request).tenant)


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    after: str | None
    limit: int


def parse_page(query: Mapping[str, str], *, default: int, most: int, known: Sequence[str] = ()) -> Page:
    """Return the part of a list that a query asks for.

    Raises:
        FieldError: a parameter is unknown or out of range.
    """
    for name in query:
        if name not in ("after", "limit", "order", *known):
            raise FieldError(name, f"{name!r} is not a parameter here")
    if query.get("order", "desc") != "desc":
        raise FieldError("order", "'order' must be 'desc': lists are newest first")
    text = query.get("limit", str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise FieldError("limit", f"'limit' must be a whole number from 1 to {most:,}")
    return Page(after=query.get("after") or None, limit=int(text))


def encode_page(found: list[dict[str, Any]], *, limit: int) -> dict[str, Any]:
    """Return a page of a list in OpenAI's shape.

    Args:
        found: up to one more than the page holds, which shows that there are more.
        limit: how many the page holds.
    """
    data = found[:limit]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, "has_more": len(found) > limit, **ends}


def encode_file(file: StoredFile) -> dict[str, Any]:
    """Return a file in OpenAI's shape."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


def caller_of(request: Request) -> Principal:
    """Return who is calling.

    Raises:
        AuthenticationError: the route was mounted open, and nobody says who is calling.
    """
    if request.principal is None:
        raise AuthenticationError("missing_api_key", "this needs an API key")
    return request.principal
