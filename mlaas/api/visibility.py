"""Whose workloads a caller sees and touches: those of the own tenant, or all."""

from __future__ import annotations

from collections.abc import Mapping

from mlaas.auth.types import Principal
from mlaas.errors import PermissionDenied


def visible_tenant(principal: Principal) -> str | None:
    """Return the tenant whose workloads a caller sees; None: everybody's."""
    return None if principal.role == "admin" else principal.tenant


def tenant_asked_for(principal: Principal, query: Mapping[str, str]) -> str | None:
    """Return the tenant whose workloads a query with the parameter `tenant` is about; None: everybody's.

    Raises:
        PermissionDenied: it is not the caller's to see.
    """
    asked, visible = query.get("tenant") or None, visible_tenant(principal)
    if visible is not None and asked not in (None, visible):
        message = f"tenant={asked!r} is not the tenant of your key; leave it out, or use an admin's key"
        raise PermissionDenied("not_your_tenant", message)
    return asked or visible
