"""How commands reach the control plane: this machine's gateway and key, unless others are named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlaas.errors import AuthenticationError
from mlaas.settings import load_settings, read_secret

if TYPE_CHECKING:
    from mlaas.api.client import ControlPlane

Key = Annotated[str, typer.Option(help="API key; otherwise MLAAS_API_KEY, or this machine's own.")]
Url = Annotated[str, typer.Option(help="Gateway to ask; empty: this machine's.")]


def connect(*, url: str = "", key: str = "") -> ControlPlane:
    """Return a connection to the control plane.

    Raises:
        AuthenticationError: no key is given, set or on this machine.
    """
    from mlaas.api.client import ControlPlane

    settings = load_settings()
    path = settings.credentials_path
    secret = key or read_secret("MLAAS_API_KEY") or (path.read_text().strip() if path.exists() else "")
    if not secret:
        raise AuthenticationError(
            "no_api_key", f"give --key, set MLAAS_API_KEY, or run `mlaas up`, which writes {path}"
        )
    return ControlPlane(url or settings.gateway_url, secret)
