"""Pictures of a run: the loss curve, and the table of bits per byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mlaas.training.progress import Progress

_INK, _ACCENT, _REST = "#1f2933", "#2563eb", "#9aa5b1"


def draw_loss(curve: Sequence[Progress], *, title: str, path: Path) -> None:
    """Draw the training loss over the steps as a PNG."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([p.step for p in curve], [p.loss for p in curve], color=_ACCENT, linewidth=1.8)
    axes.set(xlabel="optimizer step", ylabel="cross-entropy, nats per token", title=title)
    axes.grid(color=_REST, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def draw_bits(bits_per_byte: Mapping[str, float], *, title: str, path: Path) -> None:
    """Draw bits per byte as bars with their values, the model's in colour, as a PNG."""
    figure = Figure(figsize=(7, 0.9 + 0.55 * len(bits_per_byte)), layout="constrained")
    axes = figure.subplots()
    names, values = list(bits_per_byte), list(bits_per_byte.values())
    bars = axes.barh(names, values, color=[_ACCENT if name == "model" else _REST for name in names])
    axes.bar_label(bars, fmt="%.3f", padding=4, color=_INK)
    axes.invert_yaxis()
    axes.set(xlabel="bits per byte on held-out files (lower is better)", title=title, xlim=(0, max(values) * 1.15))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
