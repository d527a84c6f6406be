"""A quality table as a picture: what each model scores at each task, and what that costs."""

from __future__ import annotations

from pathlib import Path

from mlaas.router.tasks.quality import QualityTable


def draw_quality(table: QualityTable, path: Path) -> None:
    """Write a PNG: scores by task, a bar for each model; and the mean score over the mean cost of an answer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    bars, points = figure.subplots(1, 2)
    tasks = sorted({task for cells in table.models.values() for task in cells})
    width = 0.8 / max(len(table.models), 1)
    for number, (model, cells) in enumerate(table.models.items()):
        places = [index + (number - (len(table.models) - 1) / 2) * width for index in range(len(tasks))]
        heights = [cells[task].score if task in cells else 0.0 for task in tasks]
        color = f"C{number % 10}"
        bars.bar(places, heights, width=width * 0.95, label=model, color=color)
        costs = [float(cell.cost_usd) for cell in cells.values() if cell.cost_usd is not None]
        score = sum(cell.score for cell in cells.values()) / len(cells)
        if costs:
            cost = sum(costs) / len(costs)
            points.scatter([cost], [score], s=70, color=color)
            points.annotate(model, (cost, score), xytext=(6, 4), textcoords="offset points", fontsize="small")
    bars.set_xticks(range(len(tasks)), [task.value.replace("_", " ") for task in tasks])
    bars.set(title="Score by task", ylim=(0, 1.05), ylabel="score")
    if table.models:
        bars.legend(loc="lower right", fontsize="small")
    points.set_xscale("symlog", linthresh=1e-6)
    points.set(title="Score and cost", ylim=(0, 1.05), xlabel="dollars for one answer", ylabel="mean score over tasks")
    for axes in (bars, points):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    figure.savefig(path, dpi=110)
