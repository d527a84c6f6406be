"""Cheap first, and stronger only when it has to be."""

from __future__ import annotations

from mlaas.errors import MlaasError
from mlaas.providers.base import Call, ProviderFailed
from mlaas.router.virtual.asking import Asked, Tally, answer_of, chat, text_of
from mlaas.router.virtual.checks import failed_check
from mlaas.router.virtual.config import CascadeConfig, CheckConfig
from mlaas.router.virtual.judge import passes


async def run_cascade(config: CascadeConfig, call: Call, tally: Tally) -> tuple[Asked, str]:
    """Return the first answer that passes the check, or the last step's, and the path to it.

    Raises:
        ProviderFailed: the last step failed.
        MlaasError: the last step was refused.
    """
    path: list[str] = []
    for model in config.steps[:-1]:
        try:
            asked = await tally.ask(chat(call, model=model), model=model)
            failed = await _failed(config.check, call, asked, tally)
        except (ProviderFailed, MlaasError) as error:
            path.append(f"{model} failed: {code_of(error)}")
            continue
        if failed is None:
            return asked, " -> ".join((*path, f"{model} passed"))
        path.append(f"{model} failed check {failed}")
    last = config.steps[-1]
    return await tally.ask(chat(call, model=last), model=last), " -> ".join((*path, last))


def code_of(error: ProviderFailed | MlaasError) -> str:
    """Return the stable code of a failure."""
    return error.failure.code if isinstance(error, ProviderFailed) else error.code


async def _failed(check: CheckConfig, call: Call, asked: Asked, tally: Tally) -> str | None:
    failed = failed_check(check, asked.fields["choices"][0])
    if failed is not None or check.judge is None or answer_of(asked).get("tool_calls"):
        return failed
    text = text_of(answer_of(asked))
    return None if await passes(tally, call, text, judge=check.judge) else "judge"
