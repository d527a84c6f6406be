"""`mlaas gateway`: the router alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlaas.settings import load_settings

if TYPE_CHECKING:
    from mlaas.platform.instance import Started


def gateway(
    config: Annotated[Path, typer.Option(help="The router's YAML file; it is read again whenever it changes.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API.")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Gateway processes behind the port.")] = 1,
) -> None:
    """Run the router alone on Ray Serve, without MLflow and models of one's own, until Ctrl-C."""
    from mlaas.router.config_file import load_config

    # Before Ray is imported, which takes seconds: whoever mistypes a line is told at once.
    load_config(config)

    from mlaas.cli.output import console, show_probe
    from mlaas.platform.standalone import run_gateway, standalone_settings

    settings = standalone_settings(load_settings(), config=config, port=port)

    def announce(started: Started) -> None:
        if started.admin_key:
            console.print(f"Admin API key, shown this once:  [bold]{started.admin_key}[/bold]")
        console.print(f"The router answers at {settings.gateway_url}/v1; Ctrl-C stops it.")

    run_gateway(settings, replicas=replicas, progress=show_probe, started=announce)
