"""What the gateway shows of its models, and whether it can explain what it would do with a request."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import httpx
import openai
import pytest
from anthropic.types import ModelInfo

from mlaas.auth.keys import create_key
from mlaas.auth.types import KeyLimits
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating
from tests.fakes.vendors import vendors
from tests.waiting import wait_until

MODELS = """
models:
  fast: {targets: [house/m, openai/gpt-5-mini]}
  careful: {cascade: {steps: [fast, anthropic/claude-sonnet-4-6], check: {min_chars: 1}}}
  absent: {targets: [local/nothing]}
  doubtful: {pipeline: {steps: [{model: fast}, {model: absent}]}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    with (
        simulating() as (url, _),
        running_gateway(tmp_path_factory.mktemp("gateway"), vendors(url) + MODELS) as running,
    ):
        yield running


def test_virtual_models_are_listed_like_any_other(gateway: Gateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["fast", "absent", "careful", "doubtful"]
        assert client.models.retrieve("careful").owned_by == "mlaas"


def test_anthropics_sdk_gets_anthropics_models(gateway: Gateway) -> None:
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
        listed = list(client.models.list())
        one = client.models.retrieve("careful")
    assert [model.id for model in listed] == ["fast", "absent", "careful", "doubtful"]
    for model in (*listed, one):
        ModelInfo.model_validate(model.model_dump(), strict=True)


def test_health_tells_of_virtual_models_what_their_members_can(gateway: Gateway) -> None:
    answer = httpx.get(f"{gateway.url}/healthz")
    assert answer.status_code == 200, answer.text
    assert answer.json()["models"] == {"fast": "up", "absent": "down", "careful": "up", "doubtful": "down"}


def test_a_key_sees_the_models_that_it_may_use(gateway: Gateway) -> None:
    limits = KeyLimits(models=("fast", "house/m"))
    secret, _ = create_key(gateway.keys, name="narrow", tenant="tests", role="user", limits=limits)
    headers = {"authorization": f"Bearer {secret}"}
    wait_until(lambda: httpx.get(f"{gateway.url}/v1/models", headers=headers).is_success, what="the key", timeout_s=10)
    shown = httpx.get(f"{gateway.url}/v1/models", headers=headers).json()["data"]
    assert [each["id"] for each in shown] == ["fast"]
    statuses = [
        httpx.get(f"{gateway.url}/v1/models/{name}", headers=headers).status_code for name in ("fast", "careful")
    ]
    assert statuses == [200, 403]
