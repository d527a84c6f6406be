"""`mlaas up`, `down`, `status`, `doctor`: the instance as a whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mlaas.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas.platform.parts import Probe

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def up(
    address: Annotated[
        str | None, typer.Option(help="host:port of a running cluster: join it as a node, start no head here.")
    ] = None,
) -> None:
    """Start what is not running: Ray, MLflow, the gateway, deployed models. Safe to repeat; heals what died."""
    from mlaas.cli.output import console, show_probe
    from mlaas.platform.instance import up as start

    started = start(load_settings(), address=address, progress=show_probe)
    console.print(f"started: {', '.join(started.healed)}" if started.healed else "everything was up already")
    if started.admin_key:
        console.print(f"\nAdmin API key, shown this once:  [bold]{started.admin_key}[/bold]")


def down() -> None:
    """Stop every process of the instance. Data, models and keys stay."""
    from mlaas.cli.output import console
    from mlaas.platform.instance import down as stop

    ended = stop(load_settings())
    console.print(f"stopped {ended} processes" if ended else "nothing was running")


def status(as_json: AsJson = False) -> None:
    """Show each part of the instance: where it answers, or why it does not. Exits with 1 when one is not up."""
    from mlaas.platform.instance import probe

    _show(probe(load_settings()), as_json=as_json)


def doctor(as_json: AsJson = False) -> None:
    """Check machine, packages, files and parts, and name the fix for whatever is wrong. Exits with 1 then."""
    from mlaas.platform.doctor import examine

    _show(examine(load_settings()), as_json=as_json)


def _show(probes: Sequence[Probe], *, as_json: bool) -> None:
    from mlaas.cli.output import print_json, show_probe

    if as_json:
        print_json([asdict(probe) for probe in probes])
    else:
        for probe in probes:
            show_probe(probe)
    if not all(probe.ok for probe in probes):
        raise typer.Exit(1)
