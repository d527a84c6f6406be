"""Asks models the tasks of a suite through the gateway, and adds up what came of it."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from mlaas.router.tasks.classify import Task
from mlaas.router.tasks.quality import QualityCell, QualityTable
from mlaas.router.tasks.suite import Suite, SuiteItem, judge_conversation, read_points, score_text

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One answer of a model, and what it took."""

    text: str
    target: str
    """`provider/model` that answered."""
    latency_s: float
    cost_usd: Decimal | None


class RequestFailed(Exception):
    """A request that brought no answer; its text is the code of the error."""


class Complete(Protocol):
    """Asks a model."""

    async def __call__(
        self, model: str, messages: Sequence[Mapping[str, Any]], *, max_tokens: int | None
    ) -> Completion:
        """Return its answer.

        Raises:
            RequestFailed: there is none.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What one model made of one item."""

    key: str
    """Says which content of an item, and which model, was measured."""
    item: str
    task: Task
    model: str
    target: str | None = None
    score: float | None = None
    latency_s: float | None = None
    cost_usd: Decimal | None = None
    error: str | None = None
    """Why there is no score; None when there is one."""


class GatewayClient:
    """Asks through the gateway, past its cache.

    Args:
        client: with the gateway's base URL and key.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def __call__(
        self, model: str, messages: Sequence[Mapping[str, Any]], *, max_tokens: int | None
    ) -> Completion:
        """Return a model's answer.

        Raises:
            RequestFailed: there is none.
        """
        import httpx

        body: dict[str, Any] = {"model": model, "messages": messages}
        if max_tokens is not None:
            body["max_completion_tokens"] = max_tokens
        began_s = time.perf_counter()
        try:
            answer = await self._client.post("chat/completions", json=body, headers={"x-mlaas-cache": "bypass"})
            value = orjson.loads(answer.content)
        except (httpx.HTTPError, orjson.JSONDecodeError) as error:
            raise RequestFailed(type(error).__name__) from error
        latency_s = time.perf_counter() - began_s
        if answer.status_code != 200:
            raise RequestFailed(_error_code(value, answer.status_code))
        match value:
            case {"choices": [{"message": {"content": str(text)}}, *_]}:
                pass
            case _:
                raise RequestFailed("no_text")
        headers = answer.headers
        parts = [headers.get("x-mlaas-provider"), headers.get("x-mlaas-model")]
        cost = headers.get("x-mlaas-cost-usd")
        return Completion(
            text=text,
            target="/".join(parts) if all(parts) else model,
            latency_s=latency_s,
            cost_usd=Decimal(cost) if cost else None,
        )


async def run_suite(
    suite: Suite,
    models: Sequence[str],
    *,
    complete: Complete,
    judge: str | None,
    concurrency: int,
    done: Mapping[str, Sample],
    keep: Callable[[Sample], None],
) -> list[Sample]:
    """Ask each model each item, a bounded number at a time.

    Args:
        suite: the items.
        models: who is asked.
        complete: asks a model.
        judge: scores what only a judge can; must be given when the suite has such items.
        concurrency: requests under way at once.
        done: samples of an earlier run by key; they are not asked again.
        keep: called with each new sample at once.

    Returns:
        One sample for each model and item, in this order.
    """
    places = asyncio.Semaphore(concurrency)

    async def measure(model: str, item: SuiteItem) -> Sample:
        key = sample_key(item, model, judge=judge)
        if key in done:
            return done[key]
        async with places:
            sample = await _measure(item, model, key=key, complete=complete, judge=judge)
        keep(sample)
        return sample

    return list(await asyncio.gather(*(measure(model, item) for model in models for item in suite.items)))


def sample_key(item: SuiteItem, model: str, *, judge: str | None) -> str:
    """Return what tells a measurement from another: all of the item, the model, and the judge if one is asked."""
    who = judge if item.score.judge is not None else None
    parts = [item.model_dump(mode="json", by_alias=True), model, who]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def read_samples(path: Path) -> dict[str, Sample]:
    """Return the samples of an earlier run that have a score, by key; a torn last line is passed over."""
    samples: dict[str, Sample] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if value["error"] is None:
            cost = Decimal(value["cost_usd"]) if value["cost_usd"] is not None else None
            samples[value["key"]] = Sample(**{**value, "task": Task(value["task"]), "cost_usd": cost})
    return samples


def encode_sample(sample: Sample) -> bytes:
    """Return a sample as a line for `read_samples`; it begins with its break, so that it never joins a torn line."""
    return b"\n" + orjson.dumps(asdict(sample), default=str)


def summarize(samples: Sequence[Sample], *, on: date) -> QualityTable:
    """Return what samples add up to, by the target that answered.

    Errors of a model count at the target that gave its answers. A model or a task without any answer has no score, and
    is not in the table.
    """
    targets = {sample.model: sample.target for sample in samples if sample.target is not None}
    groups: dict[tuple[str, Task], list[Sample]] = {}
    for sample in samples:
        place = sample.target or targets.get(sample.model) or sample.model
        groups.setdefault((place, sample.task), []).append(sample)
    models: dict[str, dict[Task, QualityCell]] = {}
    for (target, task), group in groups.items():
        scores = [sample.score for sample in group if sample.score is not None]
        if scores:
            models.setdefault(target, {})[task] = QualityCell(
                score=statistics.fmean(scores),
                samples=len(scores),
                errors=len(group) - len(scores),
                cost_usd=_mean_cost(group),
                latency_s=statistics.fmean(each.latency_s for each in group if each.latency_s is not None),
                date=on,
            )
    return QualityTable(models=models)


def merge(old: QualityTable, new: QualityTable) -> QualityTable:
    """Return a table with all cells of both, the new ones where both have one."""
    names = dict.fromkeys((*old.models, *new.models))
    return QualityTable(models={name: {**old.models.get(name, {}), **new.models.get(name, {})} for name in names})


async def _measure(item: SuiteItem, model: str, *, key: str, complete: Complete, judge: str | None) -> Sample:
    head: dict[str, Any] = {"key": key, "item": item.id, "task": item.task, "model": model}
    try:
        answer = await complete(model, item.conversation, max_tokens=item.max_tokens)
    except RequestFailed as error:
        return Sample(**head, error=str(error))
    took: dict[str, Any] = {"target": answer.target, "latency_s": answer.latency_s, "cost_usd": answer.cost_usd}
    score = score_text(item.score, answer.text)
    if score is None and judge is not None:
        try:
            verdict = await complete(judge, judge_conversation(item, answer.text), max_tokens=None)
        except RequestFailed as error:
            return Sample(**head, **took, error=f"judge: {error}")
        score = read_points(verdict.text)
    return Sample(**head, **took, score=score, error="judge: no number" if score is None else None)


def _mean_cost(group: Sequence[Sample]) -> Decimal | None:
    costs = [sample.cost_usd for sample in group if sample.cost_usd is not None]
    return sum(costs, Decimal(0)) / len(costs) if costs else None


def _error_code(value: Any, status: int) -> str:
    error = value.get("error") if isinstance(value, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return str(code or f"http_{status}")
