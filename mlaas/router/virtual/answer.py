"""Answers a chat with a virtual model."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import orjson

from mlaas.providers.base import Call, FieldError, Usage
from mlaas.router.caches.replay.usage import encode_chat_usage
from mlaas.router.virtual.asking import Tally
from mlaas.router.virtual.cascade import run_cascade
from mlaas.router.virtual.config import CascadeConfig, EnsembleConfig, PipelineConfig, VirtualConfig
from mlaas.router.virtual.ensemble import run_ensemble
from mlaas.router.virtual.pipeline import run_pipeline


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtualAnswer:
    """What a virtual model answered.

    Attributes:
        body: one chat completion under the virtual model's name, its usage that of all asks.
        usage: the same usage.
        cost_usd: what all asks cost; None when no price of theirs is known.
        reason: the path, such as `cascade: openai/gpt-5-nano failed check regex -> openai/gpt-5`.
        target: who gave the final answer.
    """

    body: bytes
    usage: Usage
    cost_usd: Decimal | None
    reason: str
    target: str


async def answer_virtual(config: VirtualConfig, call: Call, tally: Tally) -> VirtualAnswer:
    """Answer a chat with a virtual model.

    Args:
        config: the virtual model.
        call: a chat; streamed or not, the answer comes whole.
        tally: asks; what it has counted stands also when this fails or is cancelled.

    Raises:
        FieldError: the caller wants several answers.
        ProviderFailed: the model's members failed.
        MlaasError: a request to them was refused.
    """
    if (call.fields.get("n") or 1) > 1:
        raise FieldError("n", f"{call.model!r} is a virtual model and gives one answer; leave out 'n'")
    match config:
        case CascadeConfig():
            asked, path = await run_cascade(config, call, tally)
            kind = "cascade"
        case EnsembleConfig():
            asked, path = await run_ensemble(config, call, tally)
            kind = config.combine.value
        case PipelineConfig():
            asked, path = await run_pipeline(config, call, tally)
            kind = "pipeline"
    fields = {**asked.fields, "model": call.model, "usage": encode_chat_usage(tally.usage)}
    return VirtualAnswer(
        body=orjson.dumps(fields),
        usage=tally.usage,
        cost_usd=tally.cost_usd,
        reason=f"{kind}: {path}",
        target=asked.target,
    )
