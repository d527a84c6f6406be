"""How good models are at tasks: the table that `mlaas bench-models` writes and the policies `auto` and `balanced` read.

models:
  openai/gpt-5-mini:
    code: {score: 0.91, samples: 40, errors: 0, cost_usd: 0.0011, latency_s: 1.9, date: 2026-11-23}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Final

import orjson
from pydantic import Field

from mlaas.errors import PlatformError
from mlaas.located import read_located
from mlaas.router.section import Strict
from mlaas.router.tasks.classify import Task

OVERALL: Final = ""
"""Stands for all tasks together."""
PRIOR_SAMPLES: Final = 8.0
"""Weight of what is expected of any model, in samples: so many measured ones count as much as the expectation."""


class QualityCell(Strict):
    """How one model did at one task."""

    score: float = Field(ge=0, le=1)
    """Mean over the samples."""
    samples: int = Field(ge=1)
    """Answers that were scored."""
    errors: int = Field(default=0, ge=0)
    """Requests that brought no answer; they are not in the score."""
    cost_usd: Decimal | None = Field(default=None, ge=0)
    """Mean cost of one answer. None: the model has no price."""
    latency_s: float | None = Field(default=None, ge=0)
    """Mean time of a whole answer."""
    date: date
    """When it was measured."""


class QualityTable(Strict):
    """All that was measured."""

    models: dict[str, dict[Task, QualityCell]] = Field(default_factory=dict)
    """By `provider/model`, then by task."""


def read_table(path: Path) -> QualityTable:
    """Read a quality table.

    Raises:
        ConfigError: the file is missing or wrong; the message gives line and field.
    """
    return read_located(path, QualityTable, code="bad_quality_table")


def write_table(table: QualityTable, path: Path) -> None:
    """Write a quality table as JSON, whole or not at all.

    Raises:
        PlatformError: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(orjson.dumps(table.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n")
        draft.replace(path)
    except OSError as error:
        raise PlatformError("quality_not_written", f"cannot write {path}: {error.strerror}") from error


def load_quality(path: Path) -> Mapping[str, Mapping[str, float]]:
    """Return the scores that policies go by: by `provider/model`, then by task, `OVERALL` for all together.

    Raises:
        ConfigError: the file is missing or wrong; the message gives line and field.
    """
    return shrink(read_table(path))


def shrink(table: QualityTable) -> dict[str, dict[str, float]]:
    """Return a table's scores, each drawn towards what is expected, the more the fewer samples there are.

    What is expected of a model at a task is the mean of all models there: three lucky answers do not make a model the
    best. Source: Efron and Morris, Stein's paradox in statistics (1977), with a fixed weight of the prior.
    """
    tasks = {task for cells in table.models.values() for task in cells}
    expected = {
        task: _mean((cells[task].score, 1) for cells in table.models.values() if task in cells) for task in tasks
    }
    scores: dict[str, dict[str, float]] = {}
    for model, cells in table.models.items():
        if not cells:
            continue
        shrunk = {
            task.value: _mean([(cell.score, cell.samples), (expected[task], PRIOR_SAMPLES)])
            for task, cell in cells.items()
        }
        overall = _mean((score, 1) for score in shrunk.values())
        scores[model] = {**shrunk, OVERALL: overall}
    return scores


def _mean(weighted: Iterable[tuple[float, float]]) -> float:
    pairs = list(weighted)
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)
