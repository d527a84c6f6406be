"""Whatever JSON a caller sends is translated, or refused with the field that is wrong: never a bug's traceback."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas.providers.base import Call, FieldError, Operation
from mlaas.providers.openai import OpenAI
from mlaas.providers.perplexity import Perplexity
from mlaas.providers.xai import XAI
from mlaas.router.dialects.chat import Chat
from mlaas.router.dialects.responses import RESPONSES

TEXT = st.sampled_from(["", "x", "auto", "none", "function", "mlaas-thinking:W10="])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
KINDS = ["message", "reasoning", "function_call", "function_call_output", "web_search_call", "item_reference"]
PART = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["input_text", "output_text", "input_image", "input_file", "refusal", "text", "image_url"]
        )
    },
    optional=dict.fromkeys(("text", "image_url", "file_data", "refusal", "detail"), JSON),
)
CONTENT = TEXT | st.lists(PART, max_size=2) | JSON
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(KINDS) | JSON,
        "role": st.sampled_from(["user", "assistant", "system", "critic"]) | JSON,
        "content": CONTENT,
        "summary": st.lists(st.fixed_dictionaries({}, optional={"text": JSON})) | JSON,
        "mlaas_origin": TEXT,
        **dict.fromkeys(("call_id", "name", "arguments", "output", "encrypted_content", "extra_content", "id"), JSON),
    },
)
TOOL = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("type", "name", "parameters", "function", "strict"), TEXT | JSON)
)
RESPONSE = st.fixed_dictionaries(
    {"model": st.just("m"), "input": TEXT | st.lists(ITEM | JSON, max_size=4)},
    optional={
        "tools": st.lists(TOOL | JSON, max_size=2),
        "tool_choice": TEXT
        | TOOL
        | st.fixed_dictionaries({"type": st.just("allowed_tools"), "mode": TEXT, "tools": JSON}),
        "text": st.dictionaries(st.sampled_from(["format", "verbosity"]), TOOL | JSON),
        "reasoning": st.dictionaries(st.sampled_from(["effort", "summary"]), JSON),
        "include": st.lists(JSON, max_size=2),
        "stream_options": st.dictionaries(TEXT, JSON, max_size=2),
        "instructions": TEXT,
        "service_tier": JSON,
    },
)
TOOL_CALL = st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "type", "function", "extra_content"), TEXT | JSON))
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "critic"])},
    optional={
        "content": CONTENT,
        "tool_calls": st.lists(TOOL_CALL | JSON, max_size=2) | JSON,
        "tool_call_id": JSON,
        "refusal": JSON,
    },
)
CHAT = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(MESSAGE, min_size=1, max_size=3)},
    optional={
        "tools": st.lists(TOOL | JSON, max_size=2),
        "tool_choice": TEXT | TOOL,
        "response_format": TOOL,
        "reasoning_effort": TEXT,
        "stop": TEXT,
    },
)
PROVIDERS = [kind(name="p", base_url="http://x", api_key=None) for kind in (OpenAI, XAI, Perplexity)]


def calls(dialect, fields):
    """Yield the call, unless the dialect refuses it."""
    try:
        dialect.check(fields)
    except FieldError:
        return
    yield Call(operation=dialect.operation, model="m", is_stream=True, fields=fields, body=orjson.dumps(fields))


@settings(deadline=None, max_examples=60)
@given(fields=RESPONSE)
def test_a_response_becomes_a_chat_or_is_refused(fields):
    for call in calls(RESPONSES, fields):
        with contextlib.suppress(FieldError):
            assert RESPONSES.to_chat(call).operation is Operation.CHAT


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(deadline=None, max_examples=60)
@given(fields=RESPONSE)
def test_a_response_reaches_a_provider_or_is_refused(provider, fields):
    for call in calls(RESPONSES, fields):
        with contextlib.suppress(FieldError):
            orjson.loads(provider.encode_request(call, model="grok-4.7").body)


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(deadline=None, max_examples=60)
@given(fields=CHAT)
def test_a_chat_reaches_a_provider_or_is_refused(provider, fields):
    for call in calls(Chat(), fields):
        with contextlib.suppress(FieldError):
            orjson.loads(provider.encode_request(call, model="grok-4.7").body)
