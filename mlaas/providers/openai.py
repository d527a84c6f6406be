"""OpenAI."""

from __future__ import annotations

import re

from mlaas.providers.responses_wire import ResponsesCompatible


class OpenAI(ResponsesCompatible):
    """OpenAI's own API: chats, completions, responses and embeddings, all as the caller wrote them."""

    default_url = "https://api.openai.com/v1"
    foreign_fields = ResponsesCompatible.foreign_fields | {"reasoning_content"}
    newly_bounded = re.compile(r"gpt-(?:[5-9]|\d\d)|o\d")
