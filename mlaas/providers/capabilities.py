"""What each model can do, as data: so that a request is refused by name, or sent elsewhere, before it goes out.

Only what is known to be missing counts. A model that the table does not name, and every OpenAI-compatible upstream,
gets the request as it is: the upstream's own word is then the honest answer.
Source: context windows as in genai-prices, to the token where a vendor's model page has it; longest answers from the
vendors' model pages, November 2026. What is lacking: OpenAI API reference (`stop`, `reasoning_effort`) and pydantic-ai,
`profiles/openai.py` (sampling while reasoning); Anthropic API reference, Messages, which has no such fields, and
`claude_models`; ai.google.dev, OpenAI compatibility; Perplexity's SDK, types of both APIs; docs.x.ai, reasoning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from mlaas.providers.chat import is_neutral
from mlaas.providers.claude_models import find_model

_FEATURE_OF: Final = {
    "tools": "tools",
    "reasoning_effort": "reasoning",
    "temperature": "sampling",
    "top_p": "sampling",
    "presence_penalty": "penalties",
    "frequency_penalty": "penalties",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    "n": "choices",
    "seed": "seed",
    "stop": "stop",
    "logit_bias": "logit_bias",
}
"""By field of a chat; `response_format` and images are looked at more closely."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a model can do.

    Attributes:
        context_tokens: longest prompt and answer together. 0: unknown.
        max_output_tokens: longest answer. 0: unknown.
        lacks: features that it is known not to have: tools, vision, schema, json_object, reasoning, sampling,
            penalties, logprobs, choices, seed, stop, logit_bias.
        lacks_reasoning: features that it does not have while it reasons.
        reasons: whether it reasons when the request does not say.
    """

    context_tokens: int = 0
    max_output_tokens: int = 0
    lacks: frozenset[str] = frozenset()
    lacks_reasoning: frozenset[str] = frozenset()
    reasons: bool = False


def _model(
    context: int = 0, output: int = 0, lacks: str = "", *, reasoning: str = "", reasons: bool = False
) -> Capabilities:
    return Capabilities(
        context_tokens=context,
        max_output_tokens=output,
        lacks=frozenset(lacks.split()),
        lacks_reasoning=frozenset(reasoning.split()),
        reasons=reasons,
    )


UNKNOWN: Final = Capabilities()
_SAMPLED: Final = "sampling penalties logprobs"
_CLAUDE: Final = "penalties logprobs choices seed logit_bias json_object"
_GEMINI: Final = "logprobs logit_bias"
_AGENT: Final = "sampling penalties logprobs choices seed stop logit_bias json_object"
_SONAR: Final = "tools logprobs choices seed logit_bias"
_GROK: Final = "penalties stop"

# By kind of provider, then by prefix of the model; the longest prefix counts, and the empty one is for the others.
_MODELS: Final[dict[str, dict[str, Capabilities]]] = {
    "openai": {
        "gpt-6": _model(1_050_000, 128_000, reasoning=_SAMPLED),
        "gpt-5.6": _model(1_050_000, 128_000, reasoning=_SAMPLED),
        "gpt-5.5": _model(1_000_000, 128_000, reasoning=_SAMPLED),
        "gpt-5.4": _model(1_050_000, 128_000, reasoning=_SAMPLED),
        "gpt-5.4-mini": _model(400_000, 128_000, reasoning=_SAMPLED),
        "gpt-5.4-nano": _model(400_000, 128_000, reasoning=_SAMPLED),
        "gpt-5.3": _model(128_000, reasoning=_SAMPLED),
        "gpt-5.3-codex": _model(400_000, 128_000, reasoning=_SAMPLED, reasons=True),
        "gpt-5.2": _model(400_000, 128_000, reasoning=_SAMPLED),
        "gpt-5.1": _model(400_000, 128_000, reasoning=_SAMPLED),
        "gpt-5": _model(400_000, 128_000, reasoning=f"{_SAMPLED} stop", reasons=True),
        "gpt-5-chat": _model(128_000, 16_384, "reasoning tools"),
        "o1": _model(200_000, 100_000, _SAMPLED),
        "o1-mini": _model(128_000, 65_536, f"{_SAMPLED} tools schema vision reasoning"),
        "o1-preview": _model(128_000, 32_768, f"{_SAMPLED} tools schema vision reasoning"),
        "o3": _model(200_000, 100_000, f"{_SAMPLED} stop"),
        "o3-mini": _model(200_000, 100_000, f"{_SAMPLED} vision"),
        "o4-mini": _model(200_000, 100_000, f"{_SAMPLED} stop"),
        "gpt-4.1": _model(1_047_576, 32_768, "reasoning"),
        "gpt-4o": _model(128_000, 16_384, "reasoning"),
        "gpt-4.5": _model(128_000, 16_384, "reasoning"),
        "gpt-4-turbo": _model(128_000, 4_096, "reasoning schema"),
        "gpt-4-vision": _model(128_000, 4_096, "reasoning schema tools"),
        "gpt-4-0125": _model(128_000, 4_096, "reasoning schema vision"),
        "gpt-4-1106": _model(128_000, 4_096, "reasoning schema vision"),
        "gpt-4-32k": _model(32_768, 32_768, "reasoning schema vision"),
        "gpt-4": _model(8_192, 8_192, "reasoning schema vision"),
        "gpt-3.5-turbo": _model(16_385, 4_096, "reasoning schema vision"),
        "text-embedding-": _model(8_192),
    },
    "anthropic": {
        "": _model(lacks=_CLAUDE),
        "claude-fable-5": _model(1_000_000, 128_000, _CLAUDE),
        "claude-mythos-5": _model(1_000_000, 128_000, _CLAUDE),
        "claude-opus-5": _model(1_000_000, 128_000, _CLAUDE),
        "claude-sonnet-5": _model(1_000_000, 128_000, _CLAUDE),
        "claude-haiku-5": _model(1_000_000, 64_000, _CLAUDE),
        "claude-opus-4-8": _model(1_000_000, 128_000, _CLAUDE),
        "claude-opus-4-7": _model(1_000_000, 128_000, _CLAUDE),
        "claude-opus-4-6": _model(1_000_000, 128_000, _CLAUDE),
        "claude-sonnet-4-6": _model(1_000_000, 64_000, _CLAUDE),
        "claude-opus-4-5": _model(200_000, 64_000, _CLAUDE),
        "claude-sonnet-4": _model(200_000, 64_000, _CLAUDE),
        "claude-haiku-4-5": _model(200_000, 64_000, _CLAUDE),
        "claude-opus-4": _model(200_000, 32_000, f"{_CLAUDE} schema"),
        "claude-3": _model(200_000, 4_096, f"{_CLAUDE} schema reasoning"),
        "claude-3-5": _model(200_000, 8_192, f"{_CLAUDE} schema reasoning"),
        "claude-3-7": _model(200_000, 64_000, f"{_CLAUDE} schema"),
    },
    "gemini": {
        "": _model(lacks=_GEMINI),
        "gemini-4": _model(1_048_576, 65_536, _GEMINI),
        "gemini-3": _model(1_048_576, 65_536, _GEMINI),
        "gemini-2.5": _model(1_048_576, 65_536, _GEMINI),
        "gemini-2.0": _model(1_048_576, 8_192, f"{_GEMINI} reasoning"),
        "gemini-embedding-2": _model(8_192),
    },
    "perplexity": {"": _model(lacks=_AGENT)},
    "perplexity_sonar": {
        "": _model(lacks=_SONAR),
        "sonar": _model(128_000, lacks=_SONAR),
        "sonar-pro": _model(200_000, lacks=_SONAR),
    },
    "xai": {
        "": _model(lacks="logit_bias"),
        "grok-4.7": _model(500_000, lacks="logit_bias", reasoning=_GROK, reasons=True),
        "grok-4.6": _model(500_000, lacks="logit_bias", reasoning=_GROK, reasons=True),
        "grok-4.5": _model(500_000, lacks="logit_bias", reasoning=_GROK, reasons=True),
        "grok-4.3": _model(1_000_000, lacks="logit_bias", reasoning=_GROK),
        "grok-4.20": _model(1_000_000, lacks="logit_bias", reasoning=_GROK),
        "grok-4-fast": _model(2_000_000, lacks="logit_bias", reasoning=_GROK),
        "grok-4-1-fast": _model(2_000_000, lacks="logit_bias", reasoning=_GROK),
        "grok-4": _model(256_000, lacks=f"logit_bias reasoning {_GROK}"),
        "grok-code-fast": _model(256_000, lacks="logit_bias vision", reasoning=_GROK, reasons=True),
        "grok-build": _model(256_000, lacks="logit_bias", reasoning=_GROK, reasons=True),
        "grok-3": _model(131_072, lacks="logit_bias vision"),
    },
}


def find_capabilities(kind: str, model: str) -> Capabilities:
    """Return what is known of a model of a kind of provider."""
    known = _MODELS.get(kind, {})
    name = model.removeprefix("models/")
    prefix = max((prefix for prefix in known if name.startswith(prefix)), key=len, default=None)
    found = UNKNOWN if prefix is None else known[prefix]
    if kind == "anthropic" and not find_model(model).has_sampling:
        return replace(found, lacks=found.lacks | {"sampling"})
    return found


def override_capabilities(
    known: Capabilities,
    *,
    context_tokens: int | None = None,
    max_output_tokens: int | None = None,
    features: Mapping[str, bool | None],
) -> Capabilities:
    """Return capabilities as an operator corrects them; None leaves a value as it is.

    Args:
        known: what the table says.
        context_tokens: longest prompt and answer together.
        max_output_tokens: longest answer.
        features: whether the model has a feature, by the names of `Capabilities.lacks`.
    """
    had = {feature for feature, can in features.items() if can}
    lacked = {feature for feature, can in features.items() if can is False}
    return Capabilities(
        context_tokens=known.context_tokens if context_tokens is None else context_tokens,
        max_output_tokens=known.max_output_tokens if max_output_tokens is None else max_output_tokens,
        lacks=(known.lacks - had) | lacked,
        lacks_reasoning=known.lacks_reasoning - had,
        reasons=known.reasons,
    )


def unsupported_fields(capabilities: Capabilities, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields of a chat or a completion that the model cannot honour, in the order of the request.

    A null, and a value that asks for what the model does anyway, is no request for a feature. An image is named by its
    place, `messages[0].content[1]`; it cannot be dropped.
    """
    lacks = capabilities.lacks
    effort = fields.get("reasoning_effort")
    if capabilities.lacks_reasoning and (capabilities.reasons if effort is None else effort != "none"):
        lacks = lacks | capabilities.lacks_reasoning
    return tuple(_find_unsupported(lacks, fields)) if lacks else ()


def _find_unsupported(lacks: frozenset[str], fields: Mapping[str, Any]) -> Iterator[str]:
    for name, value in fields.items():
        if name == "response_format":
            kind = value.get("type") if isinstance(value, dict) else None
            if {"json_schema": "schema", "json_object": "json_object"}.get(str(kind)) in lacks:
                yield name
        elif _FEATURE_OF.get(name) in lacks and not is_neutral(name, value):
            yield name
        elif name == "messages" and "vision" in lacks:
            yield from _find_images(value)


def _find_images(messages: Any) -> Iterator[str]:
    for number, message in enumerate(messages):
        content = message.get("content")
        for place, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict) and part.get("type") == "image_url":
                yield f"messages[{number}].content[{place}]"
