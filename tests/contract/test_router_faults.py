"""Faults of the upstreams, through the running gateway: who is asked next, and what the caller of each API gets."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from mlaas.providers.simulated.directive import DEFAULTS
from mlaas.providers.simulated.server import Simulator
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating
from tests.fakes.vendors import vendors
from tests.waiting import wait_until

BEFORE = ["429", "500", "503", "529", "slow", "disconnect", "error-first", "401", "404"]
"""Faults before the first byte of content."""
WITHIN = ["stall", "truncated", "short", "malformed", "error"]
"""Faults in mid-stream."""
VENDORS = ["openai", "anthropic", "gemini", "perplexity", "xai", "house"]
BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "Write a sum."}]},
    "responses": {"input": "Write a sum."},
    "messages": {"messages": [{"role": "user", "content": "Write a sum."}], "max_tokens": 100},
    "completions": {"prompt": "Write a sum."},
}
PAIRS = [(vendor, operation) for vendor in VENDORS for operation in BODIES]
STALLED = [
    ("house", "chat/completions"),
    ("house", "responses"),
    ("anthropic", "messages"),
    ("anthropic", "completions"),
]
CASES = [(*pair, fault) for pair in PAIRS for fault in WITHIN if fault != "stall" or pair in STALLED]
# Each case has a target of its own, as one that fails again and again is not asked for a while; and a pace, so that the
# fault does not come in one piece with the first content.
ALIASES = {
    **{f"{vendor}-{fault}": f"{vendor}/sim-{fault}" for vendor in VENDORS for fault in (*BEFORE, *WITHIN)},
    **{
        f"{vendor}-{fault}-{operation}": f"{vendor}/sim-{fault}@tokens:{20 + number}+rate:300"
        for vendor, operation, fault in CASES
        for number in [list(BODIES).index(operation)]
    },
}
STALL_S = 5.0


@pytest.fixture(scope="module")
def simulated() -> Iterator[tuple[str, Simulator]]:
    with simulating(defaults=replace(DEFAULTS, stall=STALL_S)) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(simulated, tmp_path_factory) -> Iterator[Gateway]:
    aliases = "".join(f"  {alias}: {{targets: [{target}, house/m]}}\n" for alias, target in ALIASES.items())
    config = f"""{vendors(simulated[0])}
models:
{aliases}
prices:
  house/sim-endless: {{input_usd_per_mtok: 1, output_usd_per_mtok: 1}}
retries: {{min_per_s: 1000}}
timeouts: {{connect_s: 2, first_byte_s: 0.8, between_bytes_s: 0.8, restart_wait_s: 0.3}}
"""
    with running_gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture(scope="module")
def raw(gateway) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {gateway.key}"}
    with httpx.Client(base_url=f"{gateway.url}/v1", headers=headers, timeout=20) as http:
        yield http


def events_of(answer: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize(
    ("vendor", "fault"),
    [(vendor, fault) for vendor in VENDORS for fault in BEFORE if fault != "slow" or vendor in ("anthropic", "house")],
)
def test_a_fault_before_the_first_byte_is_anothers_turn(raw: httpx.Client, vendor: str, fault: str) -> None:
    for is_stream in (False, True):
        if fault == "error-first" and not is_stream:
            continue
        body = {**BODIES["chat/completions"], "model": f"{vendor}-{fault}", "stream": is_stream}
        answer = raw.post("/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert (answer.headers["x-mlaas-provider"], answer.headers["x-mlaas-model"]) == ("house", "m")
        reason = answer.headers["x-mlaas-route-reason"]
        assert f"{vendor}/sim-{fault}" in reason
        assert not is_stream or events_of(answer)[-1] == "[DONE]"


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("fault", ["truncated", "malformed", "error"])
def test_a_whole_answer_that_breaks_is_anothers_turn(raw: httpx.Client, vendor: str, fault: str) -> None:
    answer = raw.post("/chat/completions", json={**BODIES["chat/completions"], "model": f"{vendor}-{fault}"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mlaas-model"] == "m"


@pytest.mark.parametrize(("vendor", "operation", "fault"), CASES)
def test_after_the_first_byte_nobody_else_is_asked_and_the_caller_is_told_in_its_own_api(
    raw: httpx.Client, vendor: str, operation: str, fault: str
) -> None:
    body = {**BODIES[operation], "model": f"{vendor}-{fault}-{operation}", "stream": True}
    answer = raw.post(f"/{operation}", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mlaas-model"].startswith(f"sim-{fault}"), answer.headers["x-mlaas-route-reason"]
    *_, last = events_of(answer)
    told = json.loads(last)
    if operation == "responses":
        assert told["type"] in ("error", "response.failed")
        assert "response.completed" not in answer.text
    elif operation == "messages":
        assert told["type"] == "error"
        assert told["error"]["message"]
        assert "message_stop" not in answer.text
    else:
        assert told["error"]["message"]
        assert "[DONE]" not in answer.text


def test_an_account_without_money_is_asked_once(simulated: tuple[str, Simulator], tmp_path: Path) -> None:
    url, simulator = simulated
    aliases = "".join(f"  {vendor}: {{targets: [{vendor}/sim-quota, spare/m]}}\n" for vendor in VENDORS)
    spare = f'  spare: {{kind: openai_compatible, base_url: "{url}/vllm/v1", api_key: k}}'
    with running_gateway(tmp_path, f"{vendors(url)}{spare}\nmodels:\n{aliases}") as gateway:
        headers = {"authorization": f"Bearer {gateway.key}"}
        for vendor in VENDORS:
            for _ in range(2):
                body = {**BODIES["chat/completions"], "model": vendor}
                answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers)
                assert answer.is_success, answer.text
                assert answer.headers["x-mlaas-provider"] == "spare"
    assert simulator.faults["quota"] == len(VENDORS)


def test_the_sdks_raise_what_is_told_in_mid_stream(gateway: Gateway) -> None:
    messages: Any = BODIES["chat/completions"]["messages"]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        with pytest.raises(openai.APIError, match="told to fail"):
            list(
                client.chat.completions.create(
                    model="house/sim-error@tokens:30+rate:300", messages=messages, stream=True
                )
            )
        with pytest.raises(openai.APIError, match="told to fail"):
            list(client.responses.create(model="house/sim-error@tokens:31+rate:300", input="Write a sum.", stream=True))
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as claude:
        manager = claude.messages.stream(model="house/sim-error@tokens:32+rate:300", max_tokens=100, messages=messages)
        with manager as stream, pytest.raises(anthropic.APIStatusError, match="told to fail"):
            stream.get_final_message()


def test_a_wait_that_the_upstream_asks_for_reaches_the_caller(raw: httpx.Client) -> None:
    for form in ("seconds", "float", "date", "ms", "go", "rfc3339"):
        body = {**BODIES["chat/completions"], "model": f"house/sim-429@form:{form}"}
        answer = raw.post("/chat/completions", json=body)
        assert answer.status_code == 429
        assert 6 <= int(answer.headers["retry-after"]) <= 8, form


@pytest.mark.parametrize("operation", BODIES)
def test_what_a_caller_got_before_it_left_is_billed(
    gateway: Gateway, simulated: tuple[str, Simulator], operation: str
) -> None:
    simulator, request_id = simulated[1], f"gone-{operation}"
    num_cancelled = simulator.num_cancelled
    body = json.dumps({**BODIES[operation], "model": "house/sim-endless", "stream": True})
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"))
    headers = {"authorization": f"Bearer {gateway.key}", "x-request-id": request_id}
    connection.request("POST", f"/v1/{operation}", body, headers)
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.read(2000)
    answer.close()
    connection.close()
    wait_until(lambda: simulator.num_cancelled > num_cancelled, what="the upstream to be freed", timeout_s=2)

    def row() -> dict[str, Any] | None:
        return next((each for each in gateway.records() if each["request_id"] == request_id), None)

    wait_until(row, what="the journal", timeout_s=5)
    found = row()
    assert found is not None
    assert (found["error"], found["target"]) == ("client_gone", "house/sim-endless")
    assert found["usage"]["output_tokens"] > 0
    assert found["usage"]["is_estimated"]
    assert Decimal(str(found["cost_usd"])) > 0
