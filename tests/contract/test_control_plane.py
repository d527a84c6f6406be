"""The control plane over HTTP: a live scheduler on a cluster in memory, behind the gateway."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from mlaas.api.client import ControlPlane
from mlaas.api.following import follow
from mlaas.api.mount import control_routes
from mlaas.api.package_folder import MAX_PACKAGE_BYTES
from mlaas.errors import InvalidRequest, MlaasError, NotFound, PlatformError
from mlaas.scheduler.on_ray.packages import unpack
from mlaas.scheduler.on_ray.parts import log_path
from tests.fakes.control_plane import Platform, running_platform
from tests.waiting import wait_until

SMALL = {"name": "small", "gpus": 1, "command": "true"}
WHOLE = {"name": "whole", "gpus": 4, "workers": 2, "command": ["python", "train.py"]}


@pytest.fixture
def platform(tmp_path) -> Iterator[Platform]:
    with running_platform(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> Iterator[Platform]:
    """A platform that refuses all that it is asked."""
    with running_platform(tmp_path_factory.mktemp("platform")) as running:
        yield running


def test_a_workload_is_accepted_runs_is_explained_and_ends(platform: Platform) -> None:
    [accepted] = platform.submit(SMALL)
    assert (accepted["state"], accepted["tenant"], accepted["queue"]) == ("pending", "tests", "default")
    workload_id = accepted["id"]
    platform.wait_for(workload_id, "running")
    told = platform.call("GET", f"/workloads/{workload_id}/explain").json()
    assert told["state"] == "running"
    assert told["lines"][0].startswith(f"{workload_id} is running")
    platform.scheduler.cluster.end(f"{workload_id}.1")
    platform.wait_for(workload_id, "succeeded")
    events = platform.call("GET", f"/workloads/{workload_id}/events").json()["events"]
    assert [event["kind"] for event in events] == ["submitted", "placed", "running", "succeeded"]
    later = platform.call("GET", f"/workloads/{workload_id}/events", params={"after": events[1]["number"]}).json()
    assert later["events"] == events[2:]
    [listed] = platform.call("GET", "/workloads", params={"state": "succeeded", "limit": 1}).json()["workloads"]
    assert listed["id"] == workload_id
    assert platform.call("GET", "/workloads", params={"state": "pending,running"}).json()["workloads"] == []


def test_what_is_shown_of_a_workload_can_be_submitted_again(platform: Platform) -> None:
    [first] = platform.submit({**WHOLE, "estimate": "2h", "labels": {}, "environment": {"A": "b"}, "retries": 2})
    [again] = platform.submit(first["spec"])
    assert again["spec"] == first["spec"]
    assert again["id"] != first["id"]


def test_yaml_of_several_is_the_same_as_json(platform: Platform) -> None:
    text = "name: small\ngpus: 1\ncommand: 'true'\n---\nname: sweep\narray: 0-2\ngpus: 1\ncommand: [a, b]\n"
    answer = platform.call("POST", "/workloads", content=text)
    assert answer.status_code == 201
    found = answer.json()["workloads"]
    assert [(each["name"], each["array_index"]) for each in found] == [
        ("small", None),
        ("sweep", 0),
        ("sweep", 1),
        ("sweep", 2),
    ]
    assert found[0]["spec"] == platform.submit(SMALL)[0]["spec"]


def test_the_same_submission_under_one_id_is_accepted_once(platform: Platform) -> None:
    header = {"idempotency-key": "nightly-1"}
    [first] = platform.submit(SMALL, headers=header)
    [second] = platform.submit(SMALL, headers=header)
    [third] = platform.submit(SMALL, params={"submission_id": "nightly-1"})
    assert first["id"] == second["id"] == third["id"] == "nightly-1"
    refused = platform.call("POST", "/workloads", json={**SMALL, "gpus": 2}, headers=header)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "workload_exists")
    both = platform.call("POST", "/workloads", json=SMALL, headers=header, params={"submission_id": "x"})
    assert (both.status_code, both.json()["error"]["param"]) == (400, "submission_id")
    assert len(platform.call("GET", "/workloads").json()["workloads"]) == 1
    several = platform.submit([SMALL, WHOLE], headers={"idempotency-key": "k"})
    assert [each["id"] for each in several] == ["k-0", "k-1"]


def test_a_list_that_is_refused_halfway_says_what_was_accepted(platform: Platform) -> None:
    answer = platform.call("POST", "/workloads", json=[{**SMALL, "array": "0-1"}, {**SMALL, "queue": "no"}])
    assert answer.status_code == 400
    [parent] = {each["parent_id"] for each in platform.call("GET", "/workloads").json()["workloads"]}
    assert answer.json()["error"]["message"].startswith("workload 2: no queue 'no'")
    assert answer.json()["error"]["message"].endswith(f"; accepted before it: {parent}")


def test_another_tenants_workloads_do_not_exist(platform: Platform) -> None:
    [mine] = platform.submit(SMALL)
    workload_id = mine["id"]
    for method, path in [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/explain"),
        ("GET", "/logs"),
        ("POST", "/cancel"),
    ]:
        answer = platform.call(method, f"/workloads/{workload_id}{path}", key=platform.other_key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "workload_not_found"), path
    assert platform.call("GET", "/workloads", key=platform.other_key).json()["workloads"] == []
    asked = platform.call("GET", "/workloads", key=platform.other_key, params={"tenant": "tests"})
    assert (asked.status_code, asked.json()["error"]["code"]) == (403, "not_your_tenant")
    by_admin = platform.call("GET", "/workloads", key=platform.admin_key, params={"tenant": "tests"})
    assert [each["id"] for each in by_admin.json()["workloads"]] == [workload_id]
    cancelled = platform.call("POST", f"/workloads/{workload_id}/cancel", key=platform.admin_key)
    assert cancelled.json()["state"] == "cancelled"
    assert platform.call("POST", f"/workloads/{workload_id}/cancel").json()["state"] == "cancelled"


def test_of_the_cluster_a_tenant_sees_nodes_queues_its_own_work_and_the_sums_of_others(platform: Platform) -> None:
    [mine], [other] = platform.submit(SMALL), platform.submit(SMALL, key=platform.other_key)
    waiting = [
        platform.submit({**WHOLE, "workers": 2}, key=key)[0]["id"] for key in (platform.other_key, platform.gateway.key)
    ]
    platform.wait_for(mine["id"], "running")
    platform.wait_for(other["id"], "running")

    def seen(key: str) -> dict[str, Any]:
        view = platform.call("GET", "/cluster", key=key).json()
        return {
            "gangs": {gang["workload_id"] for gang in view["gangs"]},
            "on nodes": {gang for each in view["nodes"] for gang in each["gangs"]},
            "tenants": {tenant["name"] for tenant in view["tenants"]},
            "others": [tuple(each[name] for name in ("name", "num_running", "num_waiting")) for each in view["others"]],
            "waiting": {each["workload_id"]: each["position"] for each in view["waiting"]},
            "nodes": len(view["nodes"]),
            "used": view["used_gpus"],
        }

    own = {mine["id"]}
    everything = seen(platform.admin_key)
    assert everything["gangs"] == everything["on nodes"] == {mine["id"], other["id"]}
    assert everything["waiting"] == {waiting[0]: 1, waiting[1]: 2}
    assert everything["others"] == []
    part = {"gangs": own, "on nodes": own, "tenants": {"tests"}, "waiting": {waiting[1]: 2}}
    part["others"] = [("other tenants", 1, 1)]
    assert seen(platform.gateway.key) == {**part, "nodes": 2, "used": 2}


@pytest.mark.parametrize(
    ("method", "path", "kwargs", "said"),
    [
        ("POST", "/workloads", {"json": {"gpu": 1}}, "'gpu', did you mean 'gpus'"),
        ("POST", "/workloads", {"content": "name: a\ngpu: 1"}, "body:2: gpu: unknown field 'gpu'"),
        ("POST", "/workloads", {"json": {"gpus": -1, "command": "true"}}, "-1 is not a finite number"),
        ("POST", "/workloads", {"content": "gpus: .nan\ncommand: 'true'"}, "nan is not a finite number"),
        ("POST", "/workloads", {"json": {"gpus": 1}}, "it has no command"),
        ("POST", "/workloads", {"json": {**SMALL, "queue": "no"}}, "no queue 'no'"),
        ("POST", "/workloads", {"json": {**SMALL, "workers": 99}}, "the largest gang of such workers"),
        ("POST", "/workloads", {"json": {**SMALL, "labels": {"rack": "r"}}}, "no node has the label rack=r"),
        ("POST", "/workloads", {"json": {**SMALL, "depends_on": ["gone"]}}, "gone, which does not exist"),
        ("POST", "/workloads", {"json": SMALL, "headers": {"idempotency-key": "a/../b"}}, "cannot be an id"),
        ("POST", "/workloads?tenant=x", {"json": SMALL}, "'tenant' is not a parameter here"),
        ("POST", "/workloads/plan", {"json": {"gpus": "many"}}, "'many' is not a finite number"),
        ("GET", "/workloads?states=x", {}, "'states' is not a parameter here, did you mean 'state'"),
        ("GET", "/workloads?state=x", {}, "'state' must be of pending, starting"),
        ("GET", "/workloads?order=oldest", {}, "'order' must be newest or turn"),
        ("GET", "/workloads?limit=0", {}, "'limit' must be a whole number from 1 to 1,000"),
        ("PUT", "/queues?dry_run=yes", {"json": {}}, "'dry_run' must be false or true"),
        ("PUT", "/queues", {"json": {"queues": {"a": {"weigth": 1}}}}, "'weigth', did you mean 'weight'"),
        ("PUT", "/queues", {"json": {"queues": {"a": {"parent": "b"}}}}, "no parent 'b'"),
    ],
)
def test_bad_input_is_refused_by_name_with_the_way_out(
    untouched: Platform, method: str, path: str, kwargs: dict[str, Any], said: str
) -> None:
    answer = untouched.call(method, path, key=untouched.admin_key, **kwargs)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]
    assert untouched.call("GET", "/workloads", key=untouched.admin_key).json()["workloads"] == []


def test_an_array_answers_by_its_own_id_for_its_indexes(platform: Platform) -> None:
    given = {**WHOLE, "array": "0-1,7"}
    array_id = platform.submit(given)[0]["parent_id"]
    platform.wait_for(f"{array_id}-0", "running")
    platform.wait_for(array_id, "running")
    shown = platform.call("GET", f"/workloads/{array_id}").json()
    assert (shown["reason"], shown["array_index"]) == ("array of 3: 2 pending, 1 running", None)
    assert shown["spec"]["array"] == "0-1,7"
    told = platform.call("GET", f"/workloads/{array_id}/explain").json()
    assert told["lines"][0] == "array of 3: 2 pending, 1 running; of these:"
    assert told["lines"][1].startswith(f"{array_id}-1 is pending")
    happened = platform.call("GET", f"/workloads/{array_id}/events").json()
    assert [event["workload_id"] for event in happened["events"][:3]] == [f"{array_id}-{n}" for n in (0, 1, 7)]
    assert happened["has_more"] is False
    log = platform.call("GET", f"/workloads/{array_id}/logs")
    assert (log.status_code, log.json()["error"]["code"]) == (404, "no_log")
    for path in ("", "/events", "/explain", "/logs"):
        answer = platform.call("GET", f"/workloads/{array_id}{path}", key=platform.other_key)
        assert f"no workload has the id '{array_id}'" in answer.json()["error"]["message"]
    ended = platform.call("POST", f"/workloads/{array_id}/cancel").json()
    assert (ended["id"], ended["state"], ended["reason"]) == (array_id, "cancelled", "array of 3: 3 cancelled")
    assert ended["ended_at"] is not None


def test_the_head_of_a_long_queue_is_listed_however_much_is_newer(platform: Platform) -> None:
    [running] = platform.submit(WHOLE)
    platform.wait_for(running["id"], "running")
    first = platform.submit(WHOLE)[0]["id"]
    held = platform.submit({**SMALL, "depends_on": [running["id"]]})[0]["id"]
    urgent = platform.submit({**WHOLE, "priority": "high"})[0]["id"]
    listed = platform.call("GET", "/workloads", params={"order": "turn"}).json()["workloads"]
    assert [each["id"] for each in listed] == [running["id"], urgent, first, held]
    some = platform.call("GET", "/workloads", params={"order": "turn", "limit": 1, "state": "pending"}).json()
    assert [each["id"] for each in some["workloads"]] == [urgent]
    of_others = platform.call("GET", "/workloads", key=platform.other_key, params={"order": "turn"}).json()
    assert of_others["workloads"] == []


def test_a_plan_says_what_would_be_and_changes_nothing(platform: Platform) -> None:
    platform.wait_for(platform.submit(WHOLE)[0]["id"], "running")
    before = platform.call("GET", "/workloads").json()
    plans = platform.call("POST", "/workloads/plan", json=[{"gpus": 4, "workers": 2}, {"cpus": 1}]).json()["plans"]
    assert [plan["queued"]["starts_now"] for plan in plans] == [False, True]
    assert any("0 of 2 workers fit now" in line for line in plans[0]["lines"])
    assert platform.call("GET", "/workloads").json() == before


def test_without_its_store_submissions_get_503_and_nothing_is_half_written(platform: Platform) -> None:
    [running] = platform.submit(SMALL)
    platform.wait_for(running["id"], "running")
    platform.scheduler.store.is_down = True
    refused = platform.call("POST", "/workloads", json={**SMALL, "array": "0-9"})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    listed = platform.call("GET", "/workloads")
    assert (listed.status_code, listed.json()["error"]["code"]) == (503, "store_unavailable")
    platform.scheduler.store.is_down = False
    assert [each["id"] for each in platform.call("GET", "/workloads").json()["workloads"]] == [running["id"]]
    again = {"json": {**SMALL, "array": "0-9"}, "headers": {"idempotency-key": "again"}}
    wait_until(lambda: platform.call("POST", "/workloads", **again).status_code == 201, what="the store to be back")
    assert len(platform.call("GET", "/workloads").json()["workloads"]) == 11


def test_without_the_scheduler_every_question_gets_503(platform: Platform) -> None:
    platform.scheduler.stop()
    for method, path in [("POST", "/workloads"), ("POST", "/workloads/plan"), ("GET", "/cluster")]:
        answer = platform.call(method, path, json=SMALL)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "scheduler_not_up"), path
        assert int(answer.headers["retry-after"]) >= 1


def test_queues_are_an_administrators_and_shown_before_they_are_in_force(platform: Platform) -> None:
    wanted = {"queues": {"default": {"guarantee": {"gpus": 4}}, "night": {"weight": 0.5}}}
    for method in ("GET", "PUT"):
        assert platform.call(method, "/queues", json=wanted).json()["error"]["code"] == "admin_only"
    admin = {"key": platform.admin_key}
    assert platform.call("GET", "/queues", **admin).json()["number"] == 0
    shown = platform.call("PUT", "/queues?dry_run=true", json=wanted, **admin).json()
    texts = [change["text"] for change in shown["changes"]]
    assert any(text.startswith("+ queue night") for text in texts)
    assert platform.call("GET", "/queues", **admin).json()["number"] == 0
    done = platform.call("PUT", "/queues", json=wanted, **admin).json()
    assert done == {**shown, "is_dry_run": False}
    in_force = platform.call("GET", "/queues", **admin).json()
    assert (in_force["number"], in_force["document"]["queues"]["night"]["weight"]) == (1, 0.5)
    assert platform.submit({**SMALL, "queue": "night"})[0]["queue"] == "night"
    again = platform.call("PUT", "/queues", content="queues: {default: {}, night: {weight: 0.5}}", **admin).json()
    assert [change["field"] for change in again["changes"]] == ["guarantee"]


def test_a_log_is_read_piece_by_piece_and_says_when_it_is_over(platform: Platform) -> None:
    [workload] = platform.submit({**SMALL, "workers": 2})
    with platform.client() as client:
        assert client.read_log(workload["id"]).text == b""
        platform.wait_for(workload["id"], "running")
        lease_id = f"{workload['id']}.1"
        log = log_path(platform.home, lease_id)
        log.parent.mkdir(parents=True)
        log.write_bytes(b"one\ntwo\n")
        log_path(platform.home, lease_id, 1).write_bytes(b"second worker\n")
        piece = client.read_log(workload["id"])
        assert (piece.text, piece.attempt, piece.next_offset, piece.is_over) == (b"one\ntwo\n", 1, 8, False)
        assert client.read_log(workload["id"], num_lines=1).text == b"two\n"
        assert client.read_log(workload["id"], rank=1).text == b"second worker\n"
        assert client.read_log(workload["id"], offset=8).is_over is False
        platform.scheduler.cluster.end(lease_id)
        platform.wait_for(workload["id"], "succeeded")
        assert client.read_log(workload["id"], offset=4).text == b"two\n"
        assert client.read_log(workload["id"], offset=8, wait_s=10).is_over is True
        with pytest.raises(MlaasError, match="'offset' must be a whole number"):
            client.read_log(workload["id"], offset=-1)


def test_following_goes_through_all_attempts(platform: Platform) -> None:
    [workload] = platform.submit({**SMALL, "retries": {"max": 1, "backoff": 0}})
    written: list[bytes] = []
    told: list[str] = []

    def end_attempt(attempt: int, exit_code: int) -> None:
        platform.wait_for(workload["id"], "running")
        log = log_path(platform.home, f"{workload['id']}.{attempt}")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"attempt %d\n" % attempt)
        platform.scheduler.cluster.end(f"{workload['id']}.{attempt}", exit_code)

    def tell(record: dict[str, Any]) -> None:
        told.append(record["state"])

    def write(text: bytes) -> None:
        written.append(text)
        if text == b"attempt 1\n":
            wait_until(lambda: platform.scheduler.cluster.running, what="the second attempt", timeout_s=20)
            end_attempt(2, 0)

    end_attempt(1, 3)
    with platform.client() as client:
        record = follow(client, workload["id"], write=write, tell=tell)
    assert (record["state"], record["attempt"], record["num_failures"]) == ("succeeded", 2, 1)
    assert b"".join(written) == b"attempt 1\nattempt 2\n"
    assert told[-1] == "succeeded"


def test_a_package_is_kept_under_its_digest(platform: Platform) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/b.txt", "hello")
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    with platform.client() as client:
        assert not client.has_package(digest)
        assert client.upload_package(content.getvalue()) == digest
        assert client.upload_package(content.getvalue()) == digest
        assert client.has_package(digest)
        assert (unpack(platform.home, digest) / "a" / "b.txt").read_text() == "hello"
        with pytest.raises(InvalidRequest, match="ZIP"):
            client.upload_package(b"no archive")
        assert not client.has_package("../scheduler/mlaas")


def test_a_package_that_is_too_large_is_refused_before_it_is_sent(untouched: Platform) -> None:
    connection = http.client.HTTPConnection(untouched.gateway.url.removeprefix("http://"), timeout=20)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/api/v1/packages")
        connection.putheader("authorization", f"Bearer {untouched.gateway.key}")
        connection.putheader("content-length", str(MAX_PACKAGE_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_a_caller_without_a_key_is_refused_everywhere(untouched: Platform) -> None:
    for route in control_routes(untouched.scheduler, queues=untouched.scheduler.store, home=untouched.home):
        path = route.shown.replace("{id}", "x").replace("{digest}", "x")
        assert httpx.request(route.method, f"{untouched.gateway.url}{path}").status_code == 401, path


def test_the_client_says_who_does_not_answer() -> None:
    with ControlPlane("http://127.0.0.1:9", "k") as client, pytest.raises(PlatformError, match="no gateway answers"):
        client.cluster()


def test_errors_arrive_as_they_left(untouched: Platform) -> None:
    with untouched.client() as client, pytest.raises(NotFound) as missing:
        client.get("w-unknown")
    assert missing.value.code == "workload_not_found"
    assert "`mlaas queue`" in missing.value.message
    assert json.loads(untouched.call("GET", "/workloads/a%2Fb").text)["error"]["code"] == "workload_not_found"
