"""All kinds of providers, simulated, as the router's file names them."""

from __future__ import annotations

_PROVIDERS = """
providers:
  openai: {{base_url: "{url}/openai/v1", api_key: k}}
  anthropic: {{base_url: "{url}/anthropic/v1", api_key: k}}
  gemini: {{base_url: "{url}/gemini/v1beta/openai", api_key: k}}
  perplexity: {{base_url: "{url}/perplexity/v1", api_key: k}}
  xai: {{base_url: "{url}/xai/v1", api_key: k}}
  house: {{kind: openai_compatible, base_url: "{url}/v1", api_key: k}}
"""


def vendors(url: str) -> str:
    """Return the section `providers` with each vendor at the simulator that listens at `url`."""
    return _PROVIDERS.format(url=url)
