"""What models can do, and what follows for a request."""

from __future__ import annotations

import re

import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.build import KINDS
from mlaas.providers.capabilities import (
    UNKNOWN,
    find_capabilities,
    override_capabilities,
    unsupported_fields,
)

IMAGE = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]
MEDIA = re.compile("audio|tts|live|realtime|transcribe")
"""Models that the gateway does not serve; they share the names of others."""
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}


@pytest.mark.parametrize(
    ("kind", "model", "context_tokens"),
    [
        ("openai", "gpt-5.4-mini-2026-03-17", 400_000),
        ("openai", "gpt-5.4", 1_050_000),
        ("openai", "gpt-5-mini", 400_000),
        ("anthropic", "claude-opus-4-5-20251101", 200_000),
        ("anthropic", "claude-opus-5-5", 1_000_000),
        ("gemini", "models/gemini-3.8-flash", 1_048_576),
        ("perplexity_sonar", "sonar-pro", 200_000),
        ("xai", "grok-4.7", 500_000),
        ("xai", "grok-5", 0),
        ("openai_compatible", "gpt-5", 0),
    ],
)
def test_the_longest_prefix_tells_the_context(kind, model, context_tokens):
    assert find_capabilities(kind, model).context_tokens == context_tokens


def test_context_windows_agree_with_the_price_list():
    """A window that is too small refuses what its model could take; vendors round, so a tenth is agreement."""
    kinds = {"openai": "openai", "anthropic": "anthropic", "google": "gemini", "perplexity": "perplexity_sonar"}
    kinds["x-ai"] = "xai"
    compared, wrong = 0, []
    for provider in get_snapshot().providers:
        for model in provider.models if provider.id in kinds else ():
            known = find_capabilities(kinds[provider.id], model.id).context_tokens
            if known and model.context_window and not MEDIA.search(model.id):
                compared += 1
                if abs(known - model.context_window) > model.context_window / 10:
                    wrong.append((model.id, known, model.context_window))
    assert not wrong
    assert compared > 50


@pytest.mark.parametrize(
    ("kind", "model", "fields", "unsupported"),
    [
        ("openai", "gpt-5", {"temperature": 0.2, "n": 2}, ("temperature",)),
        ("openai", "gpt-5", {"temperature": 1, "stop": None, "logprobs": False}, ()),
        ("openai", "gpt-5.1", {"temperature": 0.2}, ()),
        ("openai", "gpt-5.1", {"temperature": 0.2, "reasoning_effort": "low"}, ("temperature",)),
        ("openai", "gpt-5.1", {"temperature": 0.2, "reasoning_effort": "none"}, ()),
        ("openai", "gpt-4o", {"reasoning_effort": "low"}, ("reasoning_effort",)),
        ("openai", "gpt-4", {"messages": [{"role": "user", "content": IMAGE}]}, ("messages[0].content[1]",)),
        ("openai", "o3-mini", {"messages": [{"role": "user", "content": IMAGE}]}, ("messages[0].content[1]",)),
        ("openai", "gpt-4-vision-preview", {"messages": [{"role": "user", "content": IMAGE}]}, ()),
        ("xai", "grok-3", {"messages": [{"role": "user", "content": IMAGE}]}, ("messages[0].content[1]",)),
        ("openai", "gpt-4", {"response_format": SCHEMA}, ("response_format",)),
        ("openai", "gpt-4", {"response_format": {"type": "json_object"}}, ()),
        ("anthropic", "claude-opus-5-5", {"temperature": 0.2, "seed": 1, "n": 2}, ("temperature", "seed", "n")),
        ("anthropic", "claude-haiku-4-5", {"temperature": 0.2, "n": 1}, ()),
        ("xai", "grok-4.7", {"stop": ["x"], "reasoning_effort": "none"}, ()),
        ("xai", "grok-4.7", {"stop": ["x"]}, ("stop",)),
        ("perplexity_sonar", "sonar", {"tools": [{}]}, ("tools",)),
        ("openai_compatible", "m", {"seed": 1, "tools": [{}], "anything": 1}, ()),
    ],
)
def test_a_field_that_a_model_cannot_honour_is_named(kind, model, fields, unsupported):
    assert unsupported_fields(find_capabilities(kind, model), fields) == unsupported


def test_an_operator_corrects_the_table():
    known = find_capabilities("openai", "gpt-4")
    features = {"vision": True, "tools": False, "schema": None}
    corrected = override_capabilities(known, context_tokens=9, features=features)
    assert (corrected.context_tokens, corrected.max_output_tokens) == (9, known.max_output_tokens)
    assert corrected.lacks == {"reasoning", "schema", "tools"}
    assert override_capabilities(known, features={}) == known


@given(
    st.sampled_from(KINDS),
    st.sampled_from(["gpt-5", "claude-opus-5", "gemini-3", "sonar", "grok-4", "x"]),
    st.dictionaries(st.sampled_from(["temperature", "tools", "n", "seed", "stop", "x"]), st.integers(0, 3) | st.none()),
)
def test_dropping_what_is_unsupported_leaves_a_request_that_is_supported(kind, model, fields):
    known = find_capabilities(kind, model)
    names = unsupported_fields(known, fields)
    assert set(names) <= fields.keys()
    assert unsupported_fields(known, {name: value for name, value in fields.items() if name not in names}) == ()
    assert unsupported_fields(UNKNOWN, fields) == ()
