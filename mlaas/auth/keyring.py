"""Tells from a secret who is calling, without asking the store."""

from __future__ import annotations

from collections.abc import Mapping

from mlaas.auth.keys import digest_secret
from mlaas.auth.limits import limits_of
from mlaas.auth.types import KeySource, Principal, is_role
from mlaas.errors import AuthenticationError


class KeyRing:
    """The keys in force, in memory. It knows none, and so refuses all, until its first refresh."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._principals: Mapping[str, Principal] = {}

    def refresh(self) -> None:
        """Load the keys from their source; blocks, so an event loop calls it in a thread.

        Raises:
            PlatformError: the store cannot be reached; the keys known so far stay in force.
        """
        self._principals = {
            key.digest: Principal(key_id=key.id, tenant=key.tenant, role=key.role, limits=limits_of(key))
            for key in self._source.list()
            if key.revoked_at is None and is_role(key.role)
        }

    def authenticate(self, secret: str | None) -> Principal:
        """Return who the secret belongs to. A lookup by digest: its timing tells nothing about any secret.

        Raises:
            AuthenticationError: no secret is given, or it is not a key in force.
        """
        if not secret:
            message = "no API key was sent; send the header `Authorization: Bearer sk-mlaas-...`"
            raise AuthenticationError("missing_api_key", message)
        principal = self._principals.get(digest_secret(secret))
        if principal is None:
            message = "the API key is unknown or revoked; `mlaas keys create` makes a new one"
            raise AuthenticationError("invalid_api_key", message)
        return principal

    def find(self, key_id: str) -> Principal:
        """Return who a key's id belongs to, for work that goes on after the request that the key was sent with.

        Raises:
            AuthenticationError: it is not the id of a key in force.
        """
        found = next((each for each in self._principals.values() if each.key_id == key_id), None)
        if found is None:
            raise AuthenticationError("invalid_api_key", f"API key {key_id} is unknown or revoked")
        return found
