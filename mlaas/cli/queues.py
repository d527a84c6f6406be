"""`mlaas apply`: queues, quotas and priority classes from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mlaas.cli.connection import Key, Url, connect
from mlaas.cli.instance import AsJson

_STYLES: Final = {"+": "green", "-": "red", "~": "yellow"}

if TYPE_CHECKING:
    from collections.abc import Mapping


def apply(
    file: Annotated[Path, typer.Argument(help="YAML file of queues, such as cluster/queues.yaml.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and end.")] = False,
    key: Key = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Put queues and quotas in force, at once and without a restart. What would change is shown first.

    It takes an administrator's key. What runs goes on. With --json nothing is asked: add --yes to put it in force.
    """
    import orjson

    from mlaas.cli.output import console, print_json
    from mlaas.scheduler.requests.queues_file import encode_queues, load_queues

    document = orjson.dumps(encode_queues(load_queues(file)))
    with connect(url=url, key=key) as client:
        applied = client.apply_queues(document, is_dry_run=True)
        if as_json:
            print_json(applied)
        else:
            _show(applied)
        if not applied["changes"] or dry_run or (as_json and not yes):
            return
        if not (yes or typer.confirm("put this in force?")):
            raise typer.Exit(1)
        client.apply_queues(document, is_dry_run=False)
    if not as_json:
        console.print("in force", style="green")


def _show(applied: Mapping[str, Any]) -> None:
    """Print what would change, one thing on a line, and what may be a mistake in it."""
    from rich.text import Text

    from mlaas.cli.output import console

    if not applied["changes"]:
        console.print("nothing would change")
    for change in applied["changes"]:
        console.print(Text(change["text"], style=_STYLES.get(change["text"][:1], "")))
    for warning in applied["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))
