"""`mlaas top`: nodes, gangs, queues and tenants, live."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mlaas.cli.connection import Key, Url, connect
from mlaas.cli.instance import AsJson
from mlaas.errors import PlatformError

if TYPE_CHECKING:
    from mlaas.api.client import ControlPlane

_WIDTH: Final = 240
"""Columns of a table that is shown once: it is longer lines then, and never cut."""


def top(
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2.0,
    key: Key = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Show the cluster as it is used: nodes, gangs, queues and tenants. Ctrl-C ends it."""
    from rich.console import Console

    from mlaas.cli.cluster_tables import cluster_tables
    from mlaas.cli.output import console, print_json

    with connect(url=url, key=key) as client:
        if as_json:
            print_json(client.cluster())
        elif once or not console.is_terminal:
            wide = Console(width=max(console.width, _WIDTH), highlight=False)
            wide.print(cluster_tables(client.cluster()))
        else:
            _watch(client, every_s=every)


def _watch(client: ControlPlane, *, every_s: float) -> None:
    """Show the cluster until Ctrl-C; while nobody answers, the last that was known, and why."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from mlaas.cli.cluster_tables import cluster_tables
    from mlaas.cli.output import console

    view: dict[str, Any] = client.cluster()
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                trouble = Text()
                try:
                    view = client.cluster()
                except PlatformError as error:
                    trouble = Text(f"as last known: {error.message}", style="red")
                live.update(Group(trouble, cluster_tables(view, most_gangs=_rows_left(view))), refresh=True)
                time.sleep(every_s)
    except KeyboardInterrupt:
        return


def _rows_left(view: dict[str, Any]) -> int:
    """Return how many gangs fit on the screen beside everything else."""
    from mlaas.cli.output import console

    num_others = len(view["nodes"]) + len(view["queues"]) + len(view["tenants"]) + len(view["others"])
    return max(5, console.height - num_others - 14)
