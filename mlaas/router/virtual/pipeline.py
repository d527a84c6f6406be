"""Models one after the other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlaas.providers.base import Call
from mlaas.router.virtual.asking import Asked, Tally, answer_of, chat, inner_chat, text_of
from mlaas.router.virtual.config import PipelineConfig, PipelineStep

_PLACES = re.compile(r"\{(input|previous)\}")


async def run_pipeline(config: PipelineConfig, call: Call, tally: Tally) -> tuple[Asked, str]:
    """Return the last step's answer, and the path.

    Only the last step gets the caller's wishes for the answer (tools, schema, length, stop); those before it get the
    sampling alone.

    Raises:
        ProviderFailed: a step failed.
        MlaasError: a step was refused.
    """
    given = next((text_of(each) for each in reversed(call.fields["messages"]) if each.get("role") == "user"), "")
    previous: str | None = None
    for step in config.steps[:-1]:
        messages = _messages(step, call, given=given, previous=previous)
        asked = await tally.ask(inner_chat(call, model=step.model, messages=messages), model=step.model)
        previous = text_of(answer_of(asked))
    step = config.steps[-1]
    messages = _messages(step, call, given=given, previous=previous)
    asked = await tally.ask(chat(call, model=step.model, messages=messages), model=step.model)
    return asked, " -> ".join(step.model for step in config.steps)


def render(template: str, *, given: str, previous: str) -> str:
    """Return a template with `{input}` and `{previous}` filled in; all other braces stay, also those filled in."""
    values = {"input": given, "previous": previous}
    return _PLACES.sub(lambda place: values[place[1]], template)


def _messages(step: PipelineStep, call: Call, *, given: str, previous: str | None) -> list[Mapping[str, Any]]:
    system = [{"role": "system", "content": step.system}] if step.system else []
    if step.template is None and previous is None:
        return [*system, *call.fields["messages"]]
    text = render(step.template or "{previous}", given=given, previous=previous or "")
    return [*system, {"role": "user", "content": text}]
