"""`mlaas queue`, `explain`, `plan`, `cancel`, `events`: workloads of the scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from mlaas.cli.connection import Key, Url, connect
from mlaas.cli.instance import AsJson
from mlaas.cli.workload_flags import documents_of, takes_workload_flags

_UNFINISHED: Final = ("pending", "starting", "running", "yielding")
_MOST: Final = 1000
"""Workloads that the control plane lists at once."""

WorkloadId = Annotated[str, typer.Argument(help="Id of the workload, as `mlaas queue` shows it.")]


def queue(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended too.")] = False,
    state: Annotated[str, typer.Option(help="Only these states, with commas.")] = "",
    tenant: Annotated[str, typer.Option(help="Only this tenant's; an administrator's key sees all.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="Show at most so many.")] = 50,
    key: Key = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """List workloads: what runs, what waits, and why."""
    from datetime import UTC, datetime

    from mlaas.cli.output import console, print_json, show_rows
    from mlaas.cli.workload_text import hosts_of, in_turn, others_text, row_of

    states = tuple(each.strip() for each in state.split(",")) if state else () if everything else _UNFINISHED
    with connect(url=url, key=key) as client:
        found = client.list(
            states=states, tenant=tenant, limit=_MOST, in_turn=bool(states) and set(states) <= {*_UNFINISHED}
        )
        cluster = client.cluster()
    positions = {each["workload_id"]: each["position"] for each in cluster["waiting"]}
    ordered = in_turn([{"position": positions.get(each["id"]), **each} for each in found])
    if as_json:
        print_json(ordered[:limit])
        return
    now = datetime.now(UTC)
    rows = [row_of(each, now=now, hosts=hosts_of(cluster)) for each in ordered[:limit]]
    show_rows(rows, as_json=False, empty="nothing waits and nothing runs")
    if len(ordered) > limit:
        more = f"{_MOST - limit} or more" if len(found) == _MOST else f"{len(ordered) - limit} more"
        console.print(f"and {more}; --limit shows them", style="dim")
    if others := others_text(cluster["others"]):
        console.print(others, style="dim")


def explain(workload_id: WorkloadId, key: Key = "", url: Url = "", as_json: AsJson = False) -> None:
    """Show why a workload waits: what it lacks, who goes before it, when it should start, what would start it now."""
    from mlaas.cli.output import console, print_json
    from mlaas.cli.workload_text import hosts_of, lines_text

    with connect(url=url, key=key) as client:
        told = client.explain(workload_id)
        if as_json:
            print_json(told)
        else:
            console.print(lines_text(told["lines"], hosts=hosts_of(client.cluster()), state=told["state"]))


@takes_workload_flags
def plan(
    fields: dict[str, Any],
    file: Annotated[Path | None, typer.Argument(help="YAML file with workloads; flags go before it.")] = None,
    key: Key = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Show what would become of a workload if it were submitted now. Nothing changes."""
    from mlaas.cli.output import console, print_json
    from mlaas.cli.workload_text import hosts_of, lines_text

    documents = documents_of(file, fields)
    with connect(url=url, key=key) as client:
        plans = client.plan(documents)
        if as_json:
            print_json(plans)
            return
        hosts = hosts_of(client.cluster())
    for number, told in enumerate(plans):
        if number:
            console.print()
        console.print(lines_text(told["lines"], hosts=hosts))


def cancel(
    workload_ids: Annotated[list[str], typer.Argument(help="Ids of workloads; an array's own id ends all of it.")],
    key: Key = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """End workloads, in whatever state they are. One that has ended stays as it is."""
    from mlaas.cli.output import console, print_json
    from mlaas.cli.workload_text import headline

    with connect(url=url, key=key) as client:
        ended = [client.cancel(each) for each in workload_ids]
    if as_json:
        print_json(ended)
        return
    for workload in ended:
        console.print(headline(workload))


def events(workload_id: WorkloadId, key: Key = "", url: Url = "", as_json: AsJson = False) -> None:
    """Show what has happened to a workload, or to the indexes of an array, and why."""
    from datetime import datetime

    from mlaas.cli.output import show_rows
    from mlaas.cli.workload_text import hosts_of, shortened

    with connect(url=url, key=key) as client:
        found = client.events(workload_id)
        hosts = hosts_of(client.cluster())
    if as_json:
        rows = list(found)
    else:
        rows = [
            {
                "at": datetime.fromisoformat(each["at"]),
                **({} if each["workload_id"] == workload_id else {"workload": each["workload_id"]}),
                "event": each["kind"],
                "text": shortened(each["text"], hosts),
            }
            for each in found
        ]
    show_rows(rows, as_json=as_json, empty="nothing has happened yet")
