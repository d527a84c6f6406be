from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.schema import ServeDeploySchema

from mlaas.serving.applications import (
    ApplicationState,
    application,
    application_name,
    explain,
    read_replicas,
    read_status,
    replica_application,
)
from mlaas.serving.types import DeploymentSpec
from mlaas.store.deployments import Deployment

TRACEBACK = """The deployment failed to start 3 times in a row. Error:
ray::ServeReplica:model-tiny-v1:llm.initialize_and_get_metadata() (pid=1, ip=10.0.0.5)
  File "replica.py", line 1943, in initialize
RuntimeError: Traceback (most recent call last):
  File "mlaas/serving/engine.py", line 200, in _wait_until_ready
mlaas.errors.DeploymentError: the engine of 'tiny' failed: ValueError: no such layer; log: /home/me/engine.log
"""
NO_ROOM = "Deployment 'llm' in application 'model-tiny-v1' has 1 replicas that have taken over 30s to be scheduled."
SLOW = """Deployment 'llm' in application 'model-tiny-v1' has 1 replicas that have taken more than 30s to initialize.
This may be caused by a slow __init__ or reconfigure method."""


def deployment(*, replicas: int = 1) -> Deployment:
    return Deployment(name="tiny", model="tiny", version=1, replicas=replicas, created_at=datetime.now(UTC))


def details(status: str, *replica_states: str, message: str = "", deployment_message: str = "") -> dict:
    """The part that is read of what Serve's REST API answers."""
    llm = {"message": deployment_message, "replicas": [{"state": state} for state in replica_states]}
    return {
        "applications": {"model-tiny-v1": {"status": status, "message": message, "deployments": {"llm": llm}}},
    }


@given(replicas=st.integers(1, 100), version=st.integers(1, 10_000))
def test_serve_takes_what_we_write(replicas, version):
    row = Deployment(name="tiny", model="base", version=version, replicas=replicas, created_at=datetime.now(UTC))
    (parsed,) = ServeDeploySchema.model_validate({"applications": [application(row)]}).applications
    assert parsed.name == application_name(row)
    assert parsed.route_prefix is None
    assert DeploymentSpec.model_validate(parsed.args) == DeploymentSpec(name="tiny", model="base", version=version)


def test_more_replicas_change_no_argument_which_would_restart_those_that_run():
    one, two = application(deployment(replicas=1)), application(deployment(replicas=2))
    assert one.pop("deployments") != two.pop("deployments")
    assert one == two


def test_an_application_that_serve_does_not_know_is_absent():
    status = read_status({"applications": {}}, deployment())
    assert status.state is ApplicationState.ABSENT
    assert status.reason


def test_it_runs_when_every_replica_is_up():
    status = read_status(details("RUNNING", "RUNNING", "RUNNING"), deployment(replicas=2))
    assert status.is_running
    assert status.num_running == 2
    assert status.reason == ""


def test_it_still_starts_when_serve_has_not_noticed_the_new_number_of_replicas():
    status = read_status(details("RUNNING", "RUNNING"), deployment(replicas=2))
    assert status.state is ApplicationState.STARTING
    assert status.reason == "replicas: 1 running"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"message": TRACEBACK}, "the engine of 'tiny' failed: ValueError: no such layer; log: /home/me/engine.log"),
        ({"deployment_message": NO_ROOM}, NO_ROOM),
        ({"deployment_message": SLOW}, "replicas: 1 starting"),
        ({}, "replicas: 1 starting"),
    ],
)
def test_what_waits_says_why(said, reason):
    status = read_status(details("DEPLOYING", "STARTING", **said), deployment())
    assert status.state is ApplicationState.STARTING
    assert status.reason == reason


def test_a_failed_application_quotes_the_engine():
    status = read_status(details("DEPLOY_FAILED", message=TRACEBACK), deployment())
    assert status.has_failed
    assert "no such layer" in status.reason


@given(st.text())
def test_any_message_is_explained_in_one_line(message):
    assert len(explain(message).splitlines()) <= 1


@pytest.mark.parametrize("args", [{"cpus": 0}, {"version": 0}, {"model": None}, {"gpu": 1}])
def test_a_wrong_argument_is_refused(args):
    with pytest.raises(ValueError, match=next(iter(args))):
        DeploymentSpec.model_validate({"name": "tiny", "model": "tiny", "version": 1} | args)


SHARED = replace(deployment(), max_replicas=4, replicas=2)


def shared_details(*states: str, version: int = 1) -> dict:
    config = {"args": {"name": "tiny", "model": "tiny", "version": version}}
    return {
        "applications": {
            f"replica-r{number}": {
                "status": state, "message": "", "deployments": {}, "deployed_app_config": config,
            }
            for number, state in enumerate(states)
        }
    }  # fmt: skip


def test_a_replica_on_a_booked_node_is_an_application_pinned_to_it():
    written = replica_application("r1", name="tiny", version=3, node="ab12", resources={"CPU": 1.0, "GPU": 1.0})
    (parsed,) = ServeDeploySchema.model_validate({"applications": [written]}).applications
    (llm,) = parsed.deployments
    assert llm.ray_actor_options.label_selector == {"ray.io/node-id": "ab12"}
    assert (llm.ray_actor_options.num_cpus, llm.ray_actor_options.num_gpus) == (1, 1)
    assert DeploymentSpec.model_validate(parsed.args) == DeploymentSpec(name="tiny", model="tiny", version=3)


def test_a_shared_deployment_runs_once_its_fewest_replicas_do():
    assert read_status(shared_details("RUNNING", "DEPLOYING", "RUNNING"), SHARED).is_running
    status = read_status(shared_details("RUNNING", "DEPLOYING"), SHARED)
    assert (status.state, status.num_running, status.num_wanted) == (ApplicationState.STARTING, 1, 2)
    assert read_status(shared_details("DEPLOY_FAILED"), SHARED).has_failed


def test_replicas_of_another_version_do_not_count():
    status = read_status(shared_details("RUNNING", "RUNNING", version=2), SHARED)
    assert (status.state, status.reason) == (ApplicationState.ABSENT, "waits for machines; `mlaas queue` shows why")


def test_replicas_are_found_by_their_booking():
    found = {
        "applications": {**shared_details("RUNNING", "DEPLOYING")["applications"], "gateway": {"status": "RUNNING"}}
    }
    assert read_replicas(found) == {"r0": ApplicationState.RUNNING, "r1": ApplicationState.STARTING}


def test_a_shared_deployment_that_gets_no_machine_for_its_fewest_replicas_has_failed_with_the_reason():
    blocked = replace(SHARED, obstacle="queue q is at its limit")
    status = read_status(shared_details("RUNNING"), blocked)
    assert (status.has_failed, status.num_running) == (True, 1)
    assert status.reason == "no machine for a replica: queue q is at its limit"
    assert read_status(shared_details("RUNNING", "RUNNING"), blocked).is_running
