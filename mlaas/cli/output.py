"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from mlaas.platform.parts import Probe

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def show_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print rows of equal keys as a table that is never cut to the terminal's width, or as one JSON list.

    A value that is a `Text` keeps its colours.
    """
    if as_json:
        print_json(rows)
    elif not rows:
        console.print(empty)
    else:
        head = [Text(column.replace("_", " "), style="bold") for column in rows[0]]
        lines = [head, *([_cell(value) for value in row.values()] for row in rows)]
        widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
        for line in lines:
            text = Text("  ").join(_padded(cell, width) for cell, width in zip(line, widths, strict=True))
            text.rstrip()
            console.print(text)


def print_json(value: Any) -> None:
    """Print a value as JSON, times in ISO 8601."""
    console.print(Text(json.dumps(value, indent=2, default=str)))


def show_probe(probe: Probe) -> None:
    """Print one part's state on a line, and the way out on a second when it is not up."""
    mark, style = ("✓", "green") if probe.ok else ("✗", "red")
    console.print(Text.assemble((mark, style), f" {probe.part:<14} ", probe.detail))
    if not probe.ok and probe.fix:
        console.print(Text(f"  {'':<14} → {probe.fix}", style="yellow"))


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    if isinstance(value, datetime):
        return Text(value.astimezone().strftime("%Y-%m-%d %H:%M:%S"))
    if isinstance(value, list | tuple):
        return Text(", ".join(map(str, value)))
    return Text("" if value is None else str(value).partition("\n")[0])


def _padded(cell: Text, width: int) -> Text:
    padded = cell.copy()
    padded.pad_right(width - cell.cell_len)
    return padded
