"""OpenAI."""

from __future__ import annotations

from mlaas.providers.openai_compatible import OpenAICompatible


class OpenAI(OpenAICompatible):
    """OpenAI's own API. Source: OpenAI API reference."""

    default_url = "https://api.openai.com/v1"
