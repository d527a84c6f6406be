"""What targets can do: the table of models, as the router's file corrects it."""

from __future__ import annotations

import pytest

from mlaas.providers.base import Call, Operation
from mlaas.router.abilities import Abilities
from mlaas.router.config_file import parse_config
from mlaas.router.types import Target

FILE = """
providers:
  openai: {{api_key: x}}
  house: {{kind: openai_compatible, base_url: "http://127.0.0.1:1/v1", api_key: x}}
capabilities: {{{target}: {{{feature}: {can}}}}}
"""
FIELDS = {
    "tools": {"tools": [{}]},
    "vision": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    "json_schema": {"response_format": {"type": "json_schema"}},
    "json_object": {"response_format": {"type": "json_object"}},
    "reasoning": {"reasoning_effort": "low"},
    "sampling": {"temperature": 0.2},
    "penalties": {"presence_penalty": 0.2},
    "logprobs": {"logprobs": True},
    "choices": {"n": 2},
    "seed": {"seed": 1},
    "stop": {"stop": ["x"]},
    "logit_bias": {"logit_bias": {"1": 5}},
}


def unsupported(target: Target, feature: str, *, can: bool) -> tuple[str, ...]:
    text = FILE.format(target=target, feature=feature, can=str(can).lower())
    call = Call(operation=Operation.CHAT, model="m", is_stream=False, fields=FIELDS[feature], body=b"{}")
    return Abilities(parse_config(text, source="router.yaml")).unsupported(target, call)


@pytest.mark.parametrize("feature", FIELDS)
def test_every_feature_can_be_taken_from_a_model(feature):
    target = Target(provider="house", model="m")
    assert len(unsupported(target, feature, can=False)) == 1
    assert unsupported(target, feature, can=True) == ()


@pytest.mark.parametrize("feature", ["sampling", "penalties", "logprobs", "stop"])
def test_a_feature_that_the_table_denies_can_be_given_back(feature):
    assert unsupported(Target(provider="openai", model="gpt-5-mini"), feature, can=True) == ()
    assert len(unsupported(Target(provider="openai", model="gpt-5-mini"), feature, can=False)) == 1
