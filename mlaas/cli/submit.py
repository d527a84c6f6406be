"""`mlaas submit`: a script for Ray's job API, or a workload for the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mlaas.cli.connection import Key, Url, connect
from mlaas.cli.instance import AsJson
from mlaas.cli.jobs import follow_workload, submit_job
from mlaas.cli.workload_flags import FLAGS, documents_of, rest_of, takes_workload_flags
from mlaas.errors import ConfigError

if TYPE_CHECKING:
    from mlaas.api.client import ControlPlane

_MOST_SHOWN: Final = 10


@takes_workload_flags
def submit(
    context: typer.Context,
    fields: dict[str, Any],
    script: Annotated[
        Path | None, typer.Argument(help="Python file below the working directory, such as jobs/train_lm.py.")
    ] = None,
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed to the script as they are.")] = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(help="Folder that it gets a copy of. Default: of a script the present one, else none."),
    ] = None,
    wait: Annotated[
        bool | None,
        typer.Option("--wait/--no-wait", help="Follow it until it has ended. Default: of a job yes, of a workload no."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="YAML file with workloads; flags go before it.")
    ] = None,
    key: Key = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Run a script or a command on the cluster.

    `mlaas submit jobs/train_lm.py --recipe R` runs a script at once, as `ray job submit` does, and follows its output.

    With one of the flags of a workload, with `-f FILE`, or as `mlaas submit -- COMMAND ...`, the scheduler takes it:
    it waits for its turn, survives restarts, and `mlaas explain` says why it waits.

    Arguments of a script that are flags here too go after `--`. Exits with 1 when what it follows fails. Ctrl-C stops
    following, and what runs goes on.
    """
    if script is not None and str(script).startswith("-"):
        raise _unknown_flag(str(script))
    rest = [*(arguments or []), *rest_of(context)]
    if script is not None and file is None and not fields:
        submit_job(script, rest, working_dir=working_dir or Path(), wait=wait is not False)
        return
    folder = working_dir or (None if script is None else Path())
    command = rest if script is None else _python(script, rest, folder=working_dir or Path())
    documents = documents_of(file, {**fields, **({"command": command} if command else {})})
    with connect(url=url, key=key) as client:
        records = client.submit([_with_package(client, each, folder=folder, file=file) for each in documents])
        _show(records, as_json=as_json)
        has_succeeded = [follow_workload(client, record["id"]) for record in records if wait]
    if not all(has_succeeded):
        raise typer.Exit(1)


def _unknown_flag(name: str) -> ConfigError:
    from mlaas.located import nearest

    return ConfigError("unknown_flag", f"there is no flag {name}{nearest(name, [flag.name for flag in FLAGS])}")


def _python(script: Path, arguments: Sequence[str], *, folder: Path) -> list[str]:
    from mlaas.platform.scripts import module_of

    return ["python", "-m", module_of(script, working_dir=folder), *arguments]


def _with_package(
    client: ControlPlane, document: dict[str, Any], *, folder: Path | None, file: Path | None
) -> dict[str, Any]:
    """Return a workload whose working directory, a folder of this machine, is uploaded and named by its digest."""
    from mlaas.api.package_folder import is_digest
    from mlaas.api.packing import pack

    own = document.get("working_dir")
    if "command" not in document:
        message = "there is nothing to run: give a script, a command after `--`, or `command` in the file"
        raise ConfigError("no_command", message)
    if folder is None and (own is None or is_digest(own)):
        return document
    if folder is None:
        folder = (file.parent if file is not None else Path()) / str(own)
    package = pack(folder)
    if not client.has_package(package.digest):
        client.upload_package(package.archive)
    return {**document, "working_dir": package.digest}


def _show(records: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    from mlaas.cli.output import console, print_json
    from mlaas.cli.workload_text import headline

    if as_json:
        print_json(records)
        return
    for record in records[:_MOST_SHOWN]:
        console.print(headline(record))
    if len(records) > _MOST_SHOWN:
        console.print(f"and {len(records) - _MOST_SHOWN} more", style="dim")
    first = records[0]["parent_id"] or records[0]["id"]
    console.print(f"`mlaas explain {first}` says why it waits, `mlaas logs -f {first}` follows it", style="dim")
