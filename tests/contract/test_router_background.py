"""A response in the background is one request: it is limited, paid for and counted once, under its caller's name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating
from tests.fakes.vendors import vendors
from tests.waiting import wait_until

PRICES = """
prices:
  house/m: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}
"""


@pytest.fixture
def gateway(tmp_path) -> Iterator[Gateway]:
    with simulating() as (url, _), running_gateway(tmp_path, vendors(url) + PRICES) as running:
        yield running


def usage_of(gateway: Gateway) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {gateway.key}"}
    total: dict[str, Any] = httpx.get(f"{gateway.url}/api/v1/usage", headers=headers).json()["total"]
    return total


def test_a_background_response_has_one_row_with_its_cost(gateway: Gateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        begun = client.responses.create(
            model="house/m", input="Write a sum.", background=True, extra_headers={"x-request-id": "mine"}
        )
        wait_until(lambda: client.responses.retrieve(begun.id).status == "completed", what="the response", timeout_s=10)
        client.responses.create(model="house/m", input="Write another sum.")
    wait_until(lambda: usage_of(gateway)["num_requests"] >= 2, what="the ledger", timeout_s=10)
    wait_until(
        lambda: len([each for each in gateway.records() if each["cost_usd"]]) == 2, what="both costs", timeout_s=10
    )
    assert [each["cost_usd"] is not None for each in gateway.records() if each["request_id"] == "mine"] == [False, True]
    costs = [float(each["cost_usd"]) for each in gateway.records() if each["cost_usd"]]
    wait_until(lambda: usage_of(gateway)["cost_usd"] == pytest.approx(sum(costs)), what="the costs", timeout_s=10)
    total = usage_of(gateway)
    assert (total["num_requests"], total["num_errors"], total["num_unpriced"]) == (2, 0, 0)
