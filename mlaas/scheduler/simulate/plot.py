"""The timeline of replays as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlaas.scheduler.simulate.replay import Outcome

DAY_S = 86_400.0
MOST_POINTS = 2_000
"""Steps drawn for each line; a screen shows no more."""


def draw_timeline(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a PNG: GPUs in use, GPUs that waiting jobs ask for, and completion times, a line for each policy."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    FigureCanvasAgg(figure)
    in_use, waiting, completion = figure.subplots(3, 1)
    for outcome in outcomes:
        keep = np.unique(np.linspace(0, max(len(outcome.times_s) - 1, 0), MOST_POINTS).astype(int))
        days = outcome.times_s[keep] / DAY_S
        in_use.step(days, outcome.busy_gpus[keep], where="post", label=outcome.policy, linewidth=0.8)
        waiting.step(days, outcome.backlog_gpus[keep], where="post", label=outcome.policy, linewidth=0.8)
        times = np.sort(
            [fate.finished_s - fate.job.submit_s for fate in outcome.fates if fate.finished_s == fate.finished_s]
        )
        completion.plot(times, np.arange(1, len(times) + 1) / max(len(times), 1), label=outcome.policy, linewidth=1.0)
    most = max((outcome.num_gpus for outcome in outcomes), default=0.0)
    in_use.set(title="GPUs in use", ylabel=f"of {most:g}", xlabel="days", ylim=(0, most * 1.05))
    waiting.set(title="GPUs that waiting jobs ask for", xlabel="days", yscale="symlog")
    completion.set(
        title="Completion time, from submission to end", xlabel="seconds", ylabel="part of jobs", xscale="log"
    )
    for axes in (in_use, waiting, completion):
        axes.legend(loc="best", fontsize="small")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
