"""xAI."""

from __future__ import annotations

from mlaas.providers.base import Operation
from mlaas.providers.openai_compatible import OpenAICompatible


class XAI(OpenAICompatible):
    """xAI's chat completions. Its errors are `{"code": "...", "error": "..."}`. Source: docs.x.ai."""

    default_url = "https://api.x.ai/v1"
    operations = frozenset({Operation.CHAT})
