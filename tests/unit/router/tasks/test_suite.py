"""Suites of tasks: read with line and field, scored, run, resumed and added up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.errors import ConfigError
from mlaas.router.tasks.classify import Task
from mlaas.router.tasks.quality import QualityCell, QualityTable
from mlaas.router.tasks.quality_plot import draw_quality
from mlaas.router.tasks.suite import ScoreConfig, Suite, read_points, read_suite, score_text
from mlaas.router.tasks.suite_run import (
    Completion,
    GatewayClient,
    RequestFailed,
    Sample,
    encode_sample,
    merge,
    read_samples,
    run_suite,
    summarize,
)

SHIPPED = Path(__file__).parents[4] / "benchmarks" / "models" / "suite.yaml"
DAY = date(2026, 11, 23)


@pytest.mark.parametrize(
    ("score", "text", "worth"),
    [
        ({"exact": "10"}, " 10\n", 1),
        ({"exact": "10"}, "10.", 0),
        ({"contains": ["Ann", "bob"]}, "ann and Carl", 0.5),
        ({"regex": r"\d"}, "a1", 1),
        ({"regex": r"\d"}, "a", 0),
        ({"schema": {"type": "array"}}, "[]", 1),
        ({"schema": {"type": "array"}}, "{}", 0),
        ({"schema": {"type": "array"}}, "[", 0),
        ({"judge": "is it kind?"}, "x", None),
    ],
)
def test_answers_are_scored(score: dict, text: str, worth: float | None) -> None:
    assert score_text(ScoreConfig.model_validate(score), text) == worth


@pytest.mark.parametrize(
    ("verdict", "points"), [("7", 0.7), ("8 of 10? No: 10", 1.0), ("0", 0.0), ("great", None), ("105", None)]
)
def test_a_judge_s_last_number_counts(verdict: str, points: float | None) -> None:
    assert read_points(verdict) == points


ITEM = "  - {id: a, task: chat, prompt: hi, score: {exact: x}}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"items:\n{ITEM}{ITEM}", r"suite.yaml:1: items: the id 'a' comes 2 times"),
        (f"items:\n{ITEM}  - id: b\n    task: cooking\n", r"suite.yaml:4: items.1.task: "),
        (
            "items:\n  - {id: a, task: chat, prompt: x, score: {exact: x, regex: y}}\n",
            r":2: items.0.score: .*exactly one",
        ),
        ("items:\n  - {id: a, task: chat, prompt: x, score: {regex: '('}}\n", r":2: items.0.score.regex: .*regular"),
        ("items:\n  - {id: a, task: chat, prompt: x, score: {schema: {type: 1}}}\n", r"items.0.score.schema: .*Schema"),
        ("items:\n  - {id: a, task: chat, score: {exact: x}}\n", r"items.0: give one of prompt and messages"),
        ("items: []\n", r"suite.yaml:1: items: "),
        ("item: []\n", r"suite.yaml:1: item"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_field(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=why) as refused:
        read_suite(path)
    assert refused.value.code == "bad_suite"


def test_a_suite_may_be_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    item = {"id": "a", "task": "chat", "prompt": "hi", "score": {"exact": "x"}}
    path.write_bytes(orjson.dumps(item) + b"\n\n" + orjson.dumps({**item, "id": "b"}))
    assert [each.id for each in read_suite(path).items] == ["a", "b"]
    path.write_bytes(orjson.dumps(item) + b"\n\n" + orjson.dumps({**item, "id": 7}))
    with pytest.raises(ConfigError, match=r"suite.jsonl:3: id: "):
        read_suite(path)
    path.write_bytes(b"{")
    with pytest.raises(ConfigError, match=r"suite.jsonl:1: not valid JSON"):
        read_suite(path)


def test_the_shipped_suite_is_sound() -> None:
    suite = read_suite(SHIPPED)
    counts = [sum(item.task is task for item in suite.items) for task in Task if task is not Task.LONG_CONTEXT]
    assert min(counts) >= 3
    assert not suite.needs_judge


def suite_of(**scores: dict[str, Any]) -> Suite:
    items = [{"id": name, "task": "chat", "prompt": name, "score": score} for name, score in scores.items()]
    return Suite.model_validate({"items": items})


class Answers:
    """Answers by model and prompt; an error's text is raised."""

    def __init__(self, **replies: Any) -> None:
        self.replies = replies
        self.asked: list[tuple[str, str]] = []
        self.num_at_once = self.most_at_once = 0

    async def __call__(self, model: str, messages: Sequence[Any], *, max_tokens: int | None) -> Completion:
        self.asked.append((model, messages[-1]["content"]))
        self.num_at_once += 1
        self.most_at_once = max(self.num_at_once, self.most_at_once)
        await asyncio.sleep(0)
        self.num_at_once -= 1
        reply = self.replies[model]
        if isinstance(reply, Exception):
            raise reply
        return Completion(text=reply, target=f"p/{model}", latency_s=2.0, cost_usd=Decimal("0.5"))


async def run(suite: Suite, answers: Answers, *models: str, done: dict[str, Sample] | None = None) -> list[Sample]:
    kept: list[Sample] = []
    samples = await run_suite(
        suite, models, complete=answers, judge="j", concurrency=3, done=done or {}, keep=kept.append
    )
    assert {sample.key for sample in samples} - {sample.key for sample in kept} <= set(done or {})
    return samples


async def test_scores_errors_and_judges_are_told_apart() -> None:
    suite = suite_of(right={"exact": "x"}, wrong={"exact": "y"}, judged={"judge": "kind?"})
    answers = Answers(a="x", b=RequestFailed("no_model"), j="so: 4")
    samples = await run(suite, answers, "a", "b")
    assert [(each.item, each.score, each.error) for each in samples] == [
        ("right", 1.0, None),
        ("wrong", 0.0, None),
        ("judged", 0.4, None),
        *((item, None, "no_model") for item in ("right", "wrong", "judged")),
    ]
    table = summarize(samples, on=DAY)
    [(target, cells)] = table.models.items()
    assert target == "p/a"
    expected = {"samples": 3, "errors": 0, "cost_usd": Decimal("0.5"), "latency_s": 2.0, "date": DAY}
    assert cells[Task.CHAT] == QualityCell.model_validate({"score": 1.4 / 3, **expected})
    assert answers.most_at_once == 3


async def test_a_judge_that_fails_is_an_error_of_the_sample() -> None:
    suite = suite_of(judged={"judge": "kind?"})
    for verdict, error in ((RequestFailed("down"), "judge: down"), ("dunno", "judge: no number")):
        [sample] = await run(suite, Answers(a="x", j=verdict), "a")
        assert (sample.score, sample.error) == (None, error)


async def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    suite = suite_of(one={"exact": "x"}, two={"exact": "y"})
    answers = Answers(a="x", b=RequestFailed("down"))
    first = await run(suite, answers, "a", "b")
    log = tmp_path / "samples.jsonl"
    log.write_bytes(b"".join(map(encode_sample, first)) + b'\n{"torn')
    with log.open("ab") as stream:
        stream.write(encode_sample(first[0]))
    done = read_samples(log)
    assert set(done.values()) == set(first[:2])
    again = Answers(a="other", b="y")
    samples = await run(suite, again, "a", "b", done=done)
    assert {model for model, _ in again.asked} == {"b"}
    assert samples[:2] == first[:2]
    changed = suite_of(one={"exact": "z"})
    await run(changed, again, "a", done=done)
    assert again.asked[-1] == ("a", "one")
    assert read_samples(tmp_path / "none") == {}


async def test_errors_count_at_the_target_that_answered_the_others() -> None:
    samples = [
        Sample(key="1", item="1", task=Task.CODE, model="alias", target="p/m", score=1.0, latency_s=1.0),
        Sample(key="2", item="2", task=Task.CODE, model="alias", error="http_500"),
    ]
    cell = summarize(samples, on=DAY).models["p/m"][Task.CODE]
    assert (cell.score, cell.samples, cell.errors, cell.cost_usd) == (1.0, 1, 1, None)


SCORES = st.lists(st.none() | st.floats(0, 1), max_size=12)


@given(SCORES)
def test_every_sample_counts_once(scores: list[float | None]) -> None:
    samples = [
        Sample(key=str(n), item=str(n), task=Task.CODE, model="m", score=score, latency_s=1.0)
        for n, score in enumerate(scores)
    ]
    cells = summarize(samples, on=DAY).models.get("m", {})
    if any(score is not None for score in scores):
        assert cells[Task.CODE].samples + cells[Task.CODE].errors == len(scores)
    else:
        assert cells == {}


def table(**models: float) -> QualityTable:
    cells = {name: {Task.CODE: QualityCell(score=score, samples=1, date=DAY)} for name, score in models.items()}
    return QualityTable(models=cells)


def test_new_cells_replace_old_ones_and_leave_the_others() -> None:
    merged = merge(table(a=0.1, b=0.2), table(b=0.9, c=0.3))
    assert {name: cells[Task.CODE].score for name, cells in merged.models.items()} == {"a": 0.1, "b": 0.9, "c": 0.3}


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    priced = QualityCell(score=0.7, samples=3, cost_usd=Decimal("0.001"), date=DAY)
    path = tmp_path / "chart.png"
    draw_quality(QualityTable(models={"a/x": {Task.CODE: priced}, "b/y": {Task.CHAT: priced}}), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    draw_quality(QualityTable(), path)


@pytest.mark.parametrize(
    ("status", "content", "headers", "expected"),
    [
        (200, {"choices": [{"message": {"content": "hi"}}]}, {"x-mlaas-cost-usd": "0.0010"}, ("hi", "m", "0.0010")),
        (
            200,
            {"choices": [{"message": {"content": "hi"}}]},
            {"x-mlaas-provider": "p", "x-mlaas-model": "x/y"},
            ("hi", "p/x/y", None),
        ),
        (200, {"choices": [{"message": {"content": None}}]}, {}, "no_text"),
        (404, {"error": {"code": "model_not_found"}}, {}, "model_not_found"),
        (502, {}, {}, "http_502"),
    ],
)
async def test_the_gateway_is_asked_past_its_cache(
    status: int, content: Any, headers: dict[str, str], expected: Any
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.headers["x-mlaas-cache"] == "bypass"
        assert request.url.path == "/v1/chat/completions"
        assert orjson.loads(request.content) == {"model": "m", "messages": [], "max_completion_tokens": 9}
        return httpx.Response(status, json=content, headers=headers)

    async with httpx.AsyncClient(base_url="http://g/v1/", transport=httpx.MockTransport(handle)) as client:
        ask = GatewayClient(client)("m", [], max_tokens=9)
        if isinstance(expected, str):
            with pytest.raises(RequestFailed, match=expected):
                await ask
        else:
            answer = await ask
            cost = None if expected[2] is None else Decimal(expected[2])
            assert (answer.text, answer.target, answer.cost_usd) == (*expected[:2], cost)
