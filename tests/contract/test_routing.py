"""Choosing, through the running gateway: overflow and return, cold starts, rests, reload, and the explanation of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter

import httpx
import pytest
from aiohttp import web
from typer.testing import CliRunner

from mlaas.auth.keys import create_key
from mlaas.cli.main import app as command_line
from mlaas.providers.simulated.server import Simulator
from mlaas.router.choice.decide import decide
from mlaas.router.choice.decision_log import find_logged
from mlaas.router.types import LocalEndpoint
from tests.fakes.servers import running_gateway
from tests.fakes.serving import serving, simulating
from tests.waiting import wait_until

MESSAGES = [{"role": "user", "content": "Hello"}]
FILE = """
providers:
  house: {{kind: openai_compatible, base_url: "{house}/v1", api_key: x}}
  paid: {{kind: openai_compatible, base_url: "{paid}/v1", api_key: x}}
models:
  burst: {{targets: [house/m], burst: {{targets: [paid/m], max_queue: 1, hold_s: 0.1}}}}
  cold: {{targets: [local/tiny], burst: {{targets: [paid/m], max_queue: 8}}}}
  absent: {{targets: [local/other], burst: {{targets: [paid/m], max_queue: 8}}}}
  failing: {{targets: [house/sim-500], burst: {{targets: [paid/m], max_queue: 8}}}}
  limited: {{targets: [house/sim-429, paid/m]}}
  shared: {{policy: weighted, targets: [{{target: house/m, weight: 3}}, paid/m]}}
  cheap: {{policy: cheapest, targets: [paid/m, house/m]}}
prices:
  house/m: {{input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.1}}
  paid/m: {{input_usd_per_mtok: 1, output_usd_per_mtok: 1}}
"""


class Gate:
    """An upstream that holds its answers back until it is told to give them."""

    def __init__(self) -> None:
        self.inner = Simulator()
        self.opened = threading.Event()
        self.opened.set()
        self.num_held = 0

    def app(self) -> web.Application:
        application = self.inner.app()

        @web.middleware
        async def hold(request: web.Request, handler):
            self.num_held += 1
            try:
                await asyncio.to_thread(self.opened.wait)
            finally:
                self.num_held -= 1
            return await handler(request)

        application.middlewares.append(hold)
        return application


@pytest.fixture(scope="module")
def house():
    return Gate()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, house):
    with serving(house.app()) as house_url, simulating() as (paid_url, _):
        config = FILE.format(house=house_url, paid=paid_url)
        with running_gateway(tmp_path_factory.mktemp("gateway"), config, deployed=["tiny"]) as running:
            yield running


@pytest.fixture
def ask(gateway):
    with httpx.Client(headers={"authorization": f"Bearer {gateway.key}"}, timeout=30) as client:

        def ask(model: str) -> httpx.Response:
            body = {"model": model, "messages": MESSAGES}
            return client.post(f"{gateway.url}/v1/chat/completions", json=body)

        yield ask


def provider_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-mlaas-provider"]


def test_a_busy_home_overflows_and_takes_the_traffic_back(ask, house, gateway):
    assert provider_of(ask("burst")) == "house"
    house.opened.clear()
    threads = [threading.Thread(target=lambda: ask("house/m"), daemon=True) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        wait_until(lambda: house.num_held == 3, what="the home to be busy")
        answer = ask("burst")
        assert provider_of(answer) == "paid"
        assert answer.headers["x-mlaas-route-reason"] == "house/m saturated: 3 under way > 1; burst to paid/m"
    finally:
        house.opened.set()
    for thread in threads:
        thread.join(10)
    assert provider_of(ask("burst")) == "house"


def test_a_cold_start_is_bridged_and_a_model_that_is_not_deployed_is_not(ask):
    wait_until(lambda: ask("cold").status_code == 200, what="the deployed models to be listed")
    answer = ask("cold")
    assert provider_of(answer) == "paid"
    assert answer.headers["x-mlaas-route-reason"] == (
        "local/tiny is deployed and has no live replica yet; burst to paid/m"
    )
    assert ask("absent").status_code == 503


def test_an_error_at_home_authorises_no_paid_traffic(ask):
    answers = [ask("failing") for _ in range(4)]
    assert {answer.status_code for answer in answers} <= {500, 503}


def test_a_target_that_asks_for_a_rest_gets_it(ask):
    first, second = ask("limited"), ask("limited")
    assert [provider_of(first), provider_of(second)] == ["paid", "paid"]
    assert first.headers["x-mlaas-route-reason"].startswith("house/sim-429 failed: ")
    assert second.headers["x-mlaas-route-reason"].startswith("house/sim-429 rests, as the upstream asked, for ")


def test_shares_of_the_traffic_are_exact(ask):
    found = Counter(provider_of(ask("shared")) for _ in range(40))
    assert found["house"] == pytest.approx(30, abs=1)


def test_the_cheapest_says_what_it_saved_and_its_decision_is_logged_and_replayed(ask, gateway):
    answer = ask("cheap")
    assert answer.headers["x-mlaas-route-reason"] == "cheapest: $0.10/M vs $1.00/M at paid/m"

    def logged():
        return [each for each in gateway.records() if each["model"] == "cheap"]

    wait_until(lambda: bool(logged()), what="the journal")
    found = find_logged(json.dumps(logged()[-1]))
    assert found is not None
    assert decide(found.snapshot) == found.decision
    assert [str(each.target) for each in found.decision.attempts] == ["house/m", "paid/m"]


def test_the_command_line_asks_the_gateway_why(gateway):
    arguments = ["route", "explain", "--model", "cheap", "--url", gateway.url, "--key", gateway.key, "--json"]
    told = json.loads(CliRunner().invoke(command_line, arguments).output)
    assert (told["basis"], told["target"]) == (f"{gateway.url}, live", "house/m")
    assert [each["input_usd_per_mtok"] for each in told["candidates"]] == [pytest.approx(0.1), pytest.approx(1.0)]


def test_a_changed_file_is_in_force_within_seconds_and_a_wrong_one_is_refused(ask, gateway):
    before = gateway.config_path.read_text()
    try:
        gateway.config_path.write_text(before + "  nobody/x: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}\n")

        def refused() -> str:
            return httpx.get(f"{gateway.url}/healthz").json()["config"]["refused"]

        wait_until(lambda: "nobody/x" in refused(), what="the wrong file to be refused")
        assert provider_of(ask("cheap")) == "house"
        dearer = before.replace("house/m: {input_usd_per_mtok: 0.1", "house/m: {input_usd_per_mtok: 90")
        gateway.config_path.write_text(dearer)
        wait_until(lambda: provider_of(ask("cheap")) == "paid", what="the new prices")
        assert refused() == ""
    finally:
        gateway.config_path.write_text(before)


def test_a_replica_that_comes_up_ends_the_bridge(ask, gateway, house):
    with simulating() as (url, _):
        gateway.endpoints.replace([LocalEndpoint(model="tiny", url=url)])
        try:
            began_s = time.monotonic()
            wait_until(lambda: provider_of(ask("cold")) == "local", what="the replica to be used")
            assert time.monotonic() - began_s < 5
        finally:
            gateway.endpoints.replace([])


def test_any_replica_of_the_gateway_tells_the_demand_at_all_of_them(gateway, ask):
    folder = gateway.config_path.parent
    admin, _ = create_key(gateway.keys, name="ops", tenant="ops", role="admin")
    with running_gateway(folder, gateway.config_path.read_text(), deployed=["tiny"], replica="other") as other:

        def models_wanted() -> set[str]:
            answer = httpx.get(f"{other.url}/api/v1/demand", headers={"authorization": f"Bearer {admin}"})
            return {each["model"] for each in answer.json()["demand"] if each["num_needed"]}

        wait_until(lambda: ask("cold").status_code == 200, what="the deployed models to be listed")
        wait_until(lambda: "tiny" in models_wanted(), what="the other replica's arrivals", timeout_s=20)
