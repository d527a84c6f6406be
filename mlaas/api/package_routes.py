"""`/api/v1/packages`: working directories of commands, each kept under the digest of its content."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mlaas.api.bodies import check_parameters
from mlaas.api.package_folder import MAX_PACKAGE_BYTES
from mlaas.api.ports import PackageStore
from mlaas.errors import NotFound
from mlaas.router.files.routes import caller_of
from mlaas.router.routes import Request, Result, Route, as_json, route


@dataclass(frozen=True, kw_only=True)
class PackageRoutes:
    """The handlers.

    Attributes:
        packages: keeps the archives.
    """

    packages: PackageStore

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (
            route("POST", "/api/v1/packages", self._put, max_body_bytes=MAX_PACKAGE_BYTES),
            route("GET", "/api/v1/packages/{digest}", self._get),
        )

    async def _put(self, request: Request) -> Result:
        check_parameters(request.query, ())
        caller_of(request)
        digest = await asyncio.to_thread(self.packages.put, request.body)
        return as_json({"digest": digest}, status=201)

    async def _get(self, request: Request) -> Result:
        """Answer whether an archive is there; who knows its digest has its content."""
        check_parameters(request.query, ())
        caller_of(request)
        if not await asyncio.to_thread(self.packages.has, request.path[0]):
            raise NotFound(
                "package_not_found", f"no package {request.path[0][:100]!r}; send it with POST /api/v1/packages"
            )
        return as_json({"digest": request.path[0]})
