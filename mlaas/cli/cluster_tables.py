"""The cluster as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mlaas.cli.workload_text import hosts_of, shortened
from mlaas.scheduler.wording import count, duration

Amounts = Sequence[tuple[str, float]]

_BAR_CELLS: Final = 10
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_MOST_NODES: Final = 64
_SHOWN_FIRST: Final = ("GPU", "CPU", "memory")
_GIB: Final = 2**30


def cluster_tables(view: Mapping[str, Any], *, most_gangs: int | None = None) -> RenderableType:
    """Return the cluster as tables, one below the other.

    Args:
        view: as `GET /api/v1/cluster` answers it.
        most_gangs: show so many gangs and count the others; None: all.
    """
    parts: list[RenderableType] = [_head(view), _nodes(view)]
    tenants = [*view["tenants"], *view["others"]]
    for table in (_gangs(view["gangs"], most_gangs), _queues(view["queues"]), _tenants(tenants)):
        if table is not None:
            parts += ["", table]
    return Group(*parts)


def bar(part: float, whole: float, *, outside: float = 0.0) -> Text:
    """Return how much of a whole is used: by the scheduler's gangs in green, by others in yellow."""
    text = Text()
    filled = 0
    for amount, style in ((part, "green"), (outside, "yellow")):
        eighths = round(8 * _BAR_CELLS * amount / whole) if whole else 0
        eighths = min(eighths, 8 * _BAR_CELLS - filled)
        cells = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
        text.append(cells, style=style)
        filled += 8 * len(cells)
    text.append("·" * (_BAR_CELLS - filled // 8), style="dim")
    return text


def _head(view: Mapping[str, Any]) -> Text:
    free = view["fragmentation"]
    facts = [count(len(view["nodes"]), "node")]
    if view["total_gpus"]:
        used_part = view["used_gpus"] / view["total_gpus"]
        facts.append(f"{view['used_gpus']:g} of {view['total_gpus']:g} GPUs used ({used_part:.0%})")
    num_running = len(view["gangs"]) + sum(each["num_running"] for each in view["others"])
    facts += [f"{num_running} running", f"{view['num_waiting']} waiting", f"{free['idle_nodes']} idle"]
    if free["wasted"]:
        facts.append(f"{free['wasted']:.0%} of the free GPUs are of no use to what waits")
    return Text(" · ".join(facts), style="bold")


def _nodes(view: Mapping[str, Any]) -> Table:
    resources, hosts = _resources(view["nodes"]), hosts_of(view)
    table = _table("node", *(_heading(name) for name in resources), "labels", "gangs")
    for node in view["nodes"][:_MOST_NODES]:
        capacity, used, outside = (dict(node[field]) for field in ("capacity", "used", "outside"))
        name = Text(shortened(node["name"], hosts))
        if not node["schedulable"]:
            name.append(" drains", style="magenta")
        cells = [
            _usage(name_, used.get(name_, 0.0), outside.get(name_, 0.0), capacity.get(name_, 0.0))
            for name_ in resources
        ]
        labels = " ".join(f"{key}={value}" for key, value in node["labels"] if not key.startswith("ray.io/"))
        table.add_row(name, *cells, Text(labels, style="dim"), Text(" ".join(node["gangs"])))
    if len(view["nodes"]) > _MOST_NODES:
        table.add_row(Text(f"and {len(view['nodes']) - _MOST_NODES} more", style="dim"))
    return table


def _usage(resource: str, used: float, outside: float, whole: float) -> Text:
    if not whole:
        return Text()
    size = _GIB if resource == "memory" else 1
    amount = f" {(used + outside) / size:.4g}/{whole / size:.4g}"
    return Text.assemble(bar(used, whole, outside=outside), amount)


def _gangs(gangs: Sequence[Mapping[str, Any]], most: int | None) -> Table | None:
    if not gangs:
        return None
    table = _table("gang", "name", "tenant", "queue", "kind", "workers", "GPUs", "for", "progress", "left")
    for gang in gangs[:most]:
        attained_s, left_s = gang["attained_s"], gang["left_s"]
        left = Text(duration(left_s))
        if gang["yield_within_s"] is not None:
            left = Text(f"yields within {duration(gang['yield_within_s'])}", style="magenta")
        table.add_row(
            gang["workload_id"],
            gang["name"],
            gang["tenant"],
            gang["queue"],
            gang["kind"],
            str(sum(workers for _, workers in gang["placement"]["workers"])),
            f"{gang['gpus']:g}",
            duration(gang["since_s"]),
            Text.assemble(bar(attained_s, attained_s + left_s), f" {attained_s / max(attained_s + left_s, 1e-9):.0%}"),
            left,
        )
    if most is not None and len(gangs) > most:
        table.add_row(Text(f"and {len(gangs) - most} more", style="dim"))
    return table


def _queues(queues: Sequence[Mapping[str, Any]]) -> Table | None:
    if not queues:
        return None
    table = _table("queue", "running", "waiting", "guarantee", "used", "borrowed", "lent", "had lately", "is due")
    parent_of = {queue["name"]: queue["parent"] for queue in queues}
    for queue in sorted(queues, key=lambda each: _ancestry(each["name"], parent_of)):
        table.add_row(
            "  " * (len(_ancestry(queue["name"], parent_of)) - 1) + queue["name"],
            str(queue["num_running"]),
            _waiting(queue["num_waiting"]),
            *(_amounts(queue[field]) for field in ("guarantee", "used", "borrowed", "lent")),
            f"{queue['average_share']:.0%}",
            f"{queue['due_share']:.0%}",
        )
    return table


def _ancestry(name: str, parent_of: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return a queue's cohorts from the root down, and itself: what sorts each below its own."""
    parent = parent_of.get(name)
    return (name,) if parent is None else (*_ancestry(parent, parent_of), name)


def _tenants(tenants: Sequence[Mapping[str, Any]]) -> Table | None:
    if not tenants:
        return None
    table = _table("tenant", "running", "waiting", "GPUs", "share of the cluster")
    for tenant in tenants:
        share = Text.assemble(bar(tenant["share"], 1.0), f" {tenant['share']:.0%}")
        table.add_row(
            tenant["name"], str(tenant["num_running"]), _waiting(tenant["num_waiting"]), f"{tenant['gpus']:g}", share
        )
    return table


def _resources(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the resources that any node has: the usual ones first, then those of a cluster's own."""
    there = {name for node in nodes for name, _ in node["capacity"]}
    own = sorted(name for name in there - set(_SHOWN_FIRST) if not name.startswith(("node:", "accelerator_type:")))
    return [*(name for name in _SHOWN_FIRST if name in there), *own]


def _heading(resource: str) -> str:
    return "memory, GiB" if resource == "memory" else resource


def _amounts(amounts: Amounts) -> str:
    return ", ".join(
        f"{value / _GIB:.4g} GiB" if name == "memory" else f"{value:g} {name}" for name, value in amounts if value
    )


def _waiting(number: int) -> Text:
    return Text(str(number), style="yellow" if number else "")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table
