"""The quality table: read with clear errors, and scores drawn to the mean where samples are few."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.errors import ConfigError
from mlaas.router.tasks.classify import Task
from mlaas.router.tasks.quality import QualityCell, QualityTable, load_quality, read_table, shrink, write_table

DAY = date(2026, 11, 23)


def cell(score: float, samples: int, **fields: object) -> QualityCell:
    return QualityCell.model_validate({"score": score, "samples": samples, "date": DAY, **fields})


CELLS = st.builds(cell, st.floats(0, 1), st.integers(1, 1000))
TABLES = st.builds(
    QualityTable,
    models=st.dictionaries(
        st.sampled_from(["a/x", "b/y", "c/z"]), st.dictionaries(st.sampled_from(Task), CELLS), max_size=3
    ),
)


def test_a_table_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "quality.json"
    table = QualityTable(models={"a/x": {Task.CODE: cell(0.5, 4, errors=1, cost_usd=Decimal("0.0012"), latency_s=1.5)}})
    write_table(table, path)
    assert read_table(path) == table
    assert [each.name for each in path.parent.iterdir()] == ["quality.json"]


def test_a_table_may_be_yaml(tmp_path: Path) -> None:
    path = tmp_path / "quality.yaml"
    path.write_text("models:\n  a/x:\n    code: {score: 0.5, samples: 4, date: 2026-11-23}\n")
    assert load_quality(path) == {"a/x": {"code": 0.5, "": 0.5}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("models:\n  a/x:\n    code: {score: 1.5, samples: 4, date: 2026-11-23}\n", r":3: models.a/x.code.score: .*1"),
        ("models:\n  a/x:\n    code:\n      score: 1\n      samples: 0\n", r":5: models.a/x.code.samples: "),
        ("models:\n  a/x:\n    cooking: {score: 1}\n", r":3: models.a/x.cooking"),
        ("modelz: {}\n", r":1: modelz: "),
        ("models: [\n", r"not valid YAML"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_field(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "quality.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=why) as refused:
        load_quality(path)
    assert refused.value.code == "bad_quality_table"
    with pytest.raises(ConfigError, match="cannot read"):
        load_quality(tmp_path / "missing")


def test_few_samples_count_less_than_many() -> None:
    scores = shrink(QualityTable(models={"lucky": {Task.CODE: cell(1.0, 3)}, "proven": {Task.CODE: cell(0.9, 300)}}))
    expected = (3 * 1.0 + 8 * 0.95) / 11
    assert scores["lucky"]["code"] == pytest.approx(expected)
    assert scores["proven"]["code"] == pytest.approx((300 * 0.9 + 8 * 0.95) / 308)


@given(TABLES)
def test_scores_stay_between_the_measured_and_the_mean(table: QualityTable) -> None:
    scores = shrink(table)
    assert scores.keys() == {model for model, cells in table.models.items() if cells}
    for model, by_task in scores.items():
        for task, measured in table.models[model].items():
            others = [cells[task].score for cells in table.models.values() if task in cells]
            mean = sum(others) / len(others)
            low, high = sorted((measured.score, mean))
            assert low - 1e-9 <= by_task[task.value] <= high + 1e-9
        values = [score for task, score in by_task.items() if task]
        assert min(values) - 1e-9 <= by_task[""] <= max(values) + 1e-9


@given(TABLES)
def test_with_as_many_samples_the_better_model_stays_the_better(table: QualityTable) -> None:
    even = {m: {t: cell(c.score, 10) for t, c in cells.items()} for m, cells in table.models.items()}
    scores = shrink(QualityTable(models=even))
    for task in Task:
        measured = [(cells[task].score, scores[model][task.value]) for model, cells in even.items() if task in cells]
        ordered = sorted(measured)
        assert all(one[1] <= other[1] + 1e-9 for one, other in pairwise(ordered))
