"""`mlaas gateway` with two replicas on a real Ray cluster: money and limits are exact, whatever is killed.

The tests share one router and run in the order written; the last one ends it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx
import psutil
import pytest

from mlaas.platform.processes import owned, port_owner
from tests.fakes.gateway_command import Crowd, GatewayCommand, gateway_command
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

CLEAR = {"", "budget_exceeded", "limits_unavailable"}
BROKEN = {0, 500, 502, 503, 504}
"""What the ingress makes of a request that was under way at a replica that died; 0: it closes the connection."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayCommand]:
    with gateway_command(tmp_path_factory.mktemp("gateway")) as running:
        yield running


def crowd(gateway: GatewayCommand, key: str, *, num_callers: int, seconds: float) -> Crowd:
    return Crowd(url=gateway.url, key=key, num_callers=num_callers, seconds=seconds)


def answered_by(gateway: GatewayCommand, model: str, key: str) -> bool:
    """Tell whether every replica knows a model: ten new connections come by both."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"authorization": f"Bearer {key}"}
    return all(
        httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30).is_success
        for _ in range(10)
    )


def health(gateway: GatewayCommand) -> dict[str, object]:
    answer = httpx.get(f"{gateway.url}/healthz")
    assert answer.status_code == 200
    return answer.json()


def check_rows(gateway: GatewayCommand, key_id: str, callers: Crowd) -> None:
    """Wait until the ledger has one row for each answer, and check that no request has two."""
    wanted = {answer.request_id for answer in callers.answered}

    def are_there() -> bool:
        return wanted <= {request_id for request_id, status, _ in gateway.rows(key_id) if status == 200}

    wait_until(are_there, what="a row for each answer", timeout_s=15)
    assert max(Counter(request_id for request_id, *_ in gateway.rows(key_id)).values()) == 1


def test_64_callers_spend_a_budget_to_its_end_and_not_beyond(gateway: GatewayCommand) -> None:
    budget = Decimal("0.01")
    key = gateway.create_key(budget_usd=budget, per="day")
    callers = crowd(gateway, key.key, num_callers=64, seconds=30)
    callers.run()
    assert set(callers.outcomes()) == {"200", "429 budget_exceeded"}
    assert Decimal("0.95") * budget < callers.spent_usd <= budget
    check_rows(gateway, key.id, callers)
    assert sum(cost for *_, cost in gateway.rows(key.id)) == callers.spent_usd


def test_two_replicas_admit_exactly_the_limit(gateway: GatewayCommand) -> None:
    key = gateway.create_key(rpm=50)
    callers = crowd(gateway, key.key, num_callers=16, seconds=5)
    callers.run()
    assert len(callers.answered) == 50
    assert set(callers.outcomes()) == {"200", "429 rate_limit_exceeded"}


def test_a_changed_file_is_followed_and_a_wrong_one_is_refused(gateway: GatewayCommand) -> None:
    key = gateway.create_key(rpm=10**6)
    config = json.loads(gateway.config.read_text())
    config["models"]["quick"] = {"targets": ["openai/gpt-5-mini"]}
    gateway.write_config(config)
    wait_until(lambda: answered_by(gateway, "quick", key.key), what="both replicas to follow", timeout_s=20)
    gateway.write_config({**config, "modles": {}})
    wait_until(lambda: "did you mean 'models'" in str(health(gateway)["config"]), what="the refusal", timeout_s=20)
    assert answered_by(gateway, "quick", key.key)
    gateway.write_config(config)


def test_a_second_router_is_told_what_is_in_its_way(gateway: GatewayCommand) -> None:
    refused = gateway.run(*gateway.arguments, "--port", str(gateway.port))
    assert refused.returncode == 1
    assert "instance_is_up" in refused.stderr


def test_no_key_spends_beyond_its_budget_when_a_replica_and_a_ledger_are_killed(gateway: GatewayCommand) -> None:
    budget = Decimal("0.03")
    key = gateway.create_key(budget_usd=budget, per="day")
    callers = crowd(gateway, key.key, num_callers=32, seconds=25)
    with callers.running():
        callers.wait_for(100)
        gateway.processes("ServeReplica:gateway")[0].kill()
        callers.wait_for(200)
        for ledger in gateway.processes("LedgerActor"):
            ledger.kill()
    check_rows(gateway, key.id, callers)
    assert sum(cost for *_, cost in gateway.rows(key.id)) <= budget
    assert len(callers.answered) > 200
    broken = [answer for answer in callers.answers if answer.code not in CLEAR]
    assert {answer.status for answer in broken} <= BROKEN
    assert len(broken) <= callers.num_callers, callers.outcomes()
    wait_until(
        lambda: len(gateway.processes("ServeReplica:gateway")) == 2, what="the replica to come back", timeout_s=60
    )


def test_streams_end_whole_when_their_replica_is_taken_away(gateway: GatewayCommand) -> None:
    key = gateway.create_key()
    begun: list[float] = []

    def read_stream() -> str:
        body = {
            "model": "openai/gpt-5-mini@rate:2+tokens:40",
            "stream": True,
            "messages": [{"role": "user", "content": "hello"}],
        }
        headers = {"authorization": f"Bearer {key.key}"}
        url = f"{gateway.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
            chunks = answer.iter_text()
            first = next(chunks)
            begun.append(time.monotonic())
            return first + "".join(chunks)

    with ThreadPoolExecutor(12) as pool:
        streams = [pool.submit(read_stream) for _ in range(12)]
        wait_until(lambda: len(begun) == 12, what="all streams to have begun", timeout_s=10)
        gateway.scale(1)
        wait_until(lambda: gateway.replica_states() == ["RUNNING", "STOPPING"], what="a replica to go", timeout_s=15)
        assert not any(stream.done() for stream in streams)
        answers = [stream.result() for stream in streams]
    assert all(answer.endswith("data: [DONE]\n\n") for answer in answers)
    assert {answer.count('"content"') for answer in answers} == {41}, "the first one has an empty one, with the role"
    wait_until(lambda: gateway.replica_states() == ["RUNNING"], what="one replica to be gone", timeout_s=60)


def test_sigterm_ends_it_and_leaves_nothing(gateway: GatewayCommand) -> None:
    processes = [psutil.Process(gateway.process.pid), *owned(gateway.home)]
    assert gateway.stop() == 0
    assert owned(gateway.home) == []
    assert not any(process.is_running() for process in processes)
    assert port_owner(gateway.port) is None
