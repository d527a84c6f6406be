"""Lets in who holds a key. A store outage neither opens the gate nor shuts out keys that are known."""

from __future__ import annotations

from mlaas.auth.keyring import KeyRing
from mlaas.auth.types import Principal
from mlaas.errors import PlatformError
from mlaas.router.asgi import Scope


class Gate:
    """Authenticates requests against a key ring that a background loop keeps fresh.

    Args:
        keyring: the keys in force.
    """

    def __init__(self, keyring: KeyRing) -> None:
        self._keyring = keyring
        self._has_keys = False

    def refresh(self) -> None:
        """Load the keys again; blocks.

        Raises:
            PlatformError: the store cannot be reached; the keys known so far stay in force.
        """
        self._keyring.refresh()
        self._has_keys = True

    def admit(self, scope: Scope) -> Principal:
        """Return who is calling.

        Raises:
            AuthenticationError: no key, or not one of ours.
            PlatformError: no key could be loaded yet, so nobody can be told apart.
        """
        if not self._has_keys:
            raise PlatformError(
                "keys_unavailable", "the gateway could not load its API keys yet; try again in a moment"
            )
        return self._keyring.authenticate(_secret(scope))

    def find_principal(self, key_id: str) -> Principal:
        """Return who a key's id belongs to now.

        Raises:
            AuthenticationError: the key is unknown or revoked.
        """
        return self._keyring.find(key_id)


def _secret(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, secret = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return str(secret.strip(), "latin-1")
        elif name == b"x-api-key":
            return str(value, "latin-1")
    return None
