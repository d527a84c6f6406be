"""Workloads as people read them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from rich.text import Text

from mlaas.scheduler.wording import amount, duration

_STYLES: Final = {
    "pending": "yellow",
    "starting": "cyan",
    "running": "green",
    "yielding": "magenta",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "dim",
}
_ENDED: Final = ("succeeded", "failed", "cancelled")
_NO_POSITION: Final = 10**9
"""Of who is held back: behind all that have one."""
_NODE_ID: Final = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{48}\b")
_BEHIND: Final = "behind others that want the same capacity"
"""What the scheduler says of who is not first."""
_STRESSED: Final = ("waits:", "would wait:", "expected start:", "what would start it now:", "would be refused:")
"""Beginnings of the lines that answer what people ask first."""


def state_text(state: str) -> Text:
    """Return a state in its colour."""
    return Text(state, style=_STYLES.get(state, ""))


def hosts_of(view: Mapping[str, Any]) -> dict[str, str]:
    """Return what people call the machine of each node, of the cluster as `GET /api/v1/cluster` answers it."""
    return {node["name"]: node["host"] for node in view["nodes"] if node["host"]}


def shortened(text: str, hosts: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a text with Ray's node ids cut to their first eight digits, and behind them the machine if it is known."""

    def named(found: re.Match[str]) -> str:
        host = hosts.get(found[0])
        return found[1] if host is None else f"{found[1]} ({host})"

    return _NODE_ID.sub(named, text)


def headline(workload: Mapping[str, Any]) -> Text:
    """Return a workload and why it is in its state, on one line."""
    name = f" {workload['name']}" if workload["name"] else ""
    reason = shortened(workload["reason"]).removeprefix(f"{workload['state']}: ")
    why = f": {reason}" if reason else ""
    return Text.assemble((workload["id"], "bold"), name, " is ", state_text(workload["state"]), why)


def lines_text(lines: Sequence[str], *, hosts: Mapping[str, str], state: str = "") -> Text:
    """Return what the scheduler says of a workload: the first line as its heading, the others below it."""
    head, *others = (shortened(line, hosts) for line in lines)
    text = Text(head, style="bold")
    if state:
        text.highlight_words([f" {state}"], style=_STYLES.get(state, ""))
    for line in others:
        text.append(f"\n  {line}", style="yellow" if line.startswith(_STRESSED) else "not bold")
    return text


def in_turn(workloads: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return workloads in the order of a queue: what runs, then what waits by its position, then what has ended."""

    def turn(workload: Mapping[str, Any]) -> tuple[int, int]:
        state, position = workload["state"], workload["position"]
        group = 2 if state in _ENDED else 1 if state == "pending" else 0
        return group, position if position is not None else _NO_POSITION

    return sorted(workloads, key=turn)


def why_text(workload: Mapping[str, Any], *, hosts: Mapping[str, str]) -> str:
    """Return why a workload is in its state, in short; of one further back in the queue, how many go before it."""
    position = workload["position"]
    if workload["state"] == "pending" and position is not None and position > 1 and _BEHIND in workload["reason"]:
        return f"number {position}; {position - 1} before it"
    return shortened(workload["reason"], hosts)


def others_text(others: Sequence[Mapping[str, Any]]) -> str:
    """Return what runs and waits beside the workloads of whoever looks; empty when he sees all."""
    told = []
    for each in others:
        held = f"{amount('GPU', each['gpus'])}, " if each["gpus"] else ""
        part = f" ({held}{each['share']:.0%} of the cluster)" if each["num_running"] else ""
        told.append(f"{each['name']}: {each['num_running']} running{part}, {each['num_waiting']} waiting")
    return f"beside these, {'; '.join(told)}" if told else ""


def row_of(workload: Mapping[str, Any], *, now: datetime, hosts: Mapping[str, str]) -> dict[str, Any]:
    """Return a workload as a line of a table."""
    since = workload["ended_at"] or workload["started_at"] or workload["submitted_at"]
    if workload["state"] == "pending":
        since = workload["submitted_at"]
    return {
        "turn": "" if workload["position"] is None else str(workload["position"]),
        "id": workload["id"],
        "name": workload["name"],
        "state": state_text(workload["state"]),
        "for": duration((now - datetime.fromisoformat(since)).total_seconds()),
        "tenant": workload["tenant"],
        "queue": workload["queue"],
        "priority": str(workload["spec"]["priority"]),
        "gang": gang_text(workload["spec"]),
        "why": Text(why_text(workload, hosts=hosts), style="dim"),
    }


def gang_text(spec: Mapping[str, Any]) -> str:
    """Return the size of a gang, such as `2..8 x 1 GPU`."""
    worker = [("GPU", spec.get("gpus")), ("CPU", spec.get("cpus")), *spec.get("resources", {}).items()]
    needs = [amount(name, float(value)) for name, value in worker if value]
    shown = needs[0] if needs else "-"
    return shown if spec["workers"] == 1 else f"{spec['workers']} x {shown}"
