"""The cluster's own vLLM replicas: each one is an OpenAI-compatible server with an address of its own.

vLLM also has `/v1/messages` and `/v1/responses`, which it answers by way of its own chat completions. Callers of those
APIs reach it through the router's translation, as they reach every other provider, so they meet one behaviour.
"""

from __future__ import annotations

from mlaas.providers.openai_compatible import OpenAICompatible

LOCAL = "local"


class VLLM(OpenAICompatible):
    """The provider `local`. It has no base URL: each attempt goes to the endpoint that was chosen."""

    def __init__(self) -> None:
        super().__init__(name=LOCAL, base_url="")
