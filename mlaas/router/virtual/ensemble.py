"""Several models at once, and one answer of theirs."""

from __future__ import annotations

import asyncio
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from mlaas.errors import MlaasError
from mlaas.providers.base import Call, Failure, FailureKind, ProviderFailed
from mlaas.router.virtual.asking import Asked, Tally, answer_of, chat, text_of
from mlaas.router.virtual.cascade import code_of
from mlaas.router.virtual.config import Combine, EnsembleConfig
from mlaas.router.virtual.judge import choose, synthesis


async def run_ensemble(config: EnsembleConfig, call: Call, tally: Tally) -> tuple[Asked, str]:
    """Ask all members at once and combine what they answer.

    A member that fails is left out, as long as a quorum answers. When the judge fails or names no answer, the first
    one is taken, and the reason says so.

    Raises:
        ProviderFailed: all members failed, of which the first one's failure is told; or too few answered.
        MlaasError: all members failed, and the first one was refused.
    """
    outcomes = await asyncio.gather(*(_ask_member(call, model, tally) for model in config.models))
    answers = [(model, got) for model, got in zip(config.models, outcomes, strict=True) if isinstance(got, Asked)]
    errors = [got for got in outcomes if not isinstance(got, Asked)]
    if not answers:
        raise errors[0]
    if len(answers) < config.quorum:
        raise ProviderFailed(_no_quorum(config, len(answers), code_of(errors[0])))
    head = f"{len(answers)} of {len(config.models)} answered"
    names, asked = [model for model, _ in answers], [got for _, got in answers]
    if config.judge is None:
        index, votes = majority([answer_of(each) for each in asked])
        return asked[index], f"{head}; {votes} agree with {names[index]}"
    return await _by_judge(config, call, tally, names, asked, head=head, judge=config.judge)


def majority(messages: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the index of the first message that most agree with, and how many do.

    Messages agree when their texts do after Unicode, case, blanks and closing punctuation are evened out, or when both
    are the same JSON; tool calls count by what they call.
    """
    keys = [_normalised(message) for message in messages]
    counts = Counter(keys)
    index = max(range(len(keys)), key=lambda each: (counts[keys[each]], -each))
    return index, counts[keys[index]]


async def _ask_member(call: Call, model: str, tally: Tally) -> Asked | ProviderFailed | MlaasError:
    try:
        return await tally.ask(chat(call, model=model), model=model)
    except (ProviderFailed, MlaasError) as error:
        return error


async def _by_judge(
    config: EnsembleConfig,
    call: Call,
    tally: Tally,
    names: Sequence[str],
    asked: Sequence[Asked],
    *,
    head: str,
    judge: str,
) -> tuple[Asked, str]:
    texts = [text_of(answer_of(each)) for each in asked]
    if len(asked) == 1 or any(answer_of(each).get("tool_calls") for each in asked):
        return asked[0], f"{head}; nothing to judge, {names[0]} taken"
    try:
        if config.combine is Combine.SYNTHESIS:
            return await tally.ask(synthesis(call, texts, judge=judge), model=judge), f"{head}; synthesis by {judge}"
        index = await choose(tally, call, texts, judge=judge)
    except (ProviderFailed, MlaasError) as error:
        return asked[0], f"{head}; {judge} failed: {code_of(error)}, {names[0]} taken"
    if index is None:
        return asked[0], f"{head}; {judge} named none, {names[0]} taken"
    return asked[index], f"{head}; {judge} chose {names[index]}"


def _normalised(message: Mapping[str, Any]) -> str:
    calls = [each.get("function") or {} for each in message.get("tool_calls") or ()]
    if calls:
        return repr([(each.get("name"), _canonical(each.get("arguments") or "")) for each in calls])
    return _canonical(text_of(message))


def _canonical(text: str) -> str:
    try:
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        even = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        return even.strip(" .,;:!?\"'`*")


def _no_quorum(config: EnsembleConfig, num_answers: int, code: str) -> Failure:
    return Failure(
        kind=FailureKind.FAILED,
        status=502,
        code="no_quorum",
        message=(
            f"{num_answers} of {len(config.models)} models answered, {config.quorum} are needed; first error: {code}"
        ),
    )
