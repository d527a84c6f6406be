"""Which class speaks for which kind of provider."""

from __future__ import annotations

from mlaas.errors import ConfigError
from mlaas.providers.anthropic import Anthropic
from mlaas.providers.base import Provider
from mlaas.providers.gemini import Gemini
from mlaas.providers.openai import OpenAI
from mlaas.providers.openai_compatible import OpenAICompatible
from mlaas.providers.perplexity import Perplexity, PerplexitySonar
from mlaas.providers.xai import XAI

OPENAI_COMPATIBLE = "openai_compatible"
_VENDORS: dict[str, type[OpenAI | Anthropic | Gemini | Perplexity | PerplexitySonar | XAI]] = {
    "openai": OpenAI,
    "anthropic": Anthropic,
    "gemini": Gemini,
    "perplexity": Perplexity,
    "perplexity_sonar": PerplexitySonar,
    "xai": XAI,
}
KINDS = (*_VENDORS, OPENAI_COMPATIBLE)


def build_provider(kind: str, *, name: str, base_url: str | None, api_key: str | None) -> Provider:
    """Return the provider of a kind.

    Args:
        kind: one of `KINDS`.
        name: the provider's name in `provider/model`.
        base_url: None takes the vendor's own.
        api_key: None sends none.

    Raises:
        ConfigError: the kind is not known, or needs a `base_url`.
    """
    vendor = _VENDORS.get(kind)
    if vendor is not None:
        return vendor(name=name, base_url=base_url or vendor.default_url, api_key=api_key)
    if kind != OPENAI_COMPATIBLE:
        raise ConfigError("unknown_kind", f"provider kind {kind!r} is none of {', '.join(KINDS)}")
    if not base_url:
        raise ConfigError("missing_base_url", f"provider {name!r} of kind {kind} needs a base_url")
    return OpenAICompatible(name=name, base_url=base_url, api_key=api_key)
