"""The main job from end to end with a small recipe, driven as its users do: command line, `ray job submit`, SDK, curl.

The tests of this file share one instance and run in order; each one stands on what the one before has made.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from mlaas.platform.processes import owned, port_owner
from tests.integration.conftest import Instance
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
RECIPE = """
name = "tiny-python"
[data]
path = "{text}"
vocab_size = 300
validation_percent = 20.0
[model]
layers = 2
width = 64
heads = 2
kv_heads = 2
mlp_width = 128
context = 64
[train]
steps = 60
sequences = 8
[checkpoint]
every_steps = 30
[gang]
workers = 1
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains in seconds, on a few files of this project."""
    folder = tmp_path_factory.mktemp("text")
    for number, path in enumerate(sorted((ROOT / "mlaas" / "training").glob("*.py"))):
        (folder / f"{number}.py").write_bytes(path.read_bytes())
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(text=f"{folder}/*.py"))
    return path


@pytest.fixture(scope="module")
def client(instance: Instance) -> openai.OpenAI:
    """OpenAI's SDK with a key of its own."""
    key = json.loads(instance.run("keys", "create", "--name", "sdk", "--json").stdout)["key"]
    wait_until(lambda: healthy(instance, key), what="the gateway knows the new key")
    return openai.OpenAI(base_url=f"{instance.settings.gateway_url}/v1", api_key=key, max_retries=0, timeout=60)


def tiny_python_versions(instance: Instance) -> list[dict[str, object]]:
    models = json.loads(instance.run("models", "--json").stdout)
    return [model for model in models if model["model"] == "tiny-python"]


def healthy(instance: Instance, key: str) -> bool:
    try:
        answer = httpx.get(f"{instance.settings.gateway_url}/v1/models", headers={"authorization": f"Bearer {key}"})
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def test_up_prints_the_admin_key_once_and_a_second_up_changes_nothing(instance: Instance) -> None:
    assert instance.first_up.stdout.count("sk-mlaas-") == 1
    again = instance.run("up").stdout
    assert "everything was up already" in again
    assert "sk-mlaas-" not in again


def test_doctor_and_status_are_content_in_json_and_in_words(instance: Instance) -> None:
    probes = json.loads(instance.run("doctor", "--json").stdout)
    assert all(probe["ok"] for probe in probes), probes
    shown = instance.run("status").stdout
    assert "✓ scheduler" in shown
    assert "✗" not in shown


def test_dashboard_and_mlflow_listen_on_loopback_alone_and_the_job_api_wants_the_token(instance: Instance) -> None:
    ports = {instance.settings.dashboard_port, instance.settings.mlflow_port}
    addresses = {c.laddr for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in addresses if address.port in ports} == {"127.0.0.1"}
    assert httpx.get(f"{instance.settings.dashboard_url}/api/jobs/").status_code == 401


def test_a_port_that_is_taken_names_the_process_and_the_way_out(instance: Instance, tmp_path: Path) -> None:
    other = Instance(tmp_path, MLAAS_GATEWAY_PORT=str(instance.settings.gateway_port))
    refused = other.run("up", check=False)
    assert refused.returncode == 1
    assert f"port {instance.settings.gateway_port} is taken by haproxy (pid" in refused.stderr
    assert "MLAAS_GATEWAY_PORT" in refused.stderr
    other.close()


def test_submit_trains_and_registers_a_champion(instance: Instance, recipe: Path) -> None:
    output = instance.run("submit", str(ROOT / "jobs/train_lm.py"), "--working-dir", str(ROOT), "--recipe", str(recipe))
    outcome = json.loads(output.stdout.strip().splitlines()[-1])
    assert outcome["version"] == 1
    assert "step 60/60" in output.stdout
    (model,) = tiny_python_versions(instance)
    assert (model["model"], model["version"], model["aliases"]) == ("tiny-python", 1, ["champion"])
    assert json.loads(instance.run("jobs", "--json").stdout)[0]["status"] == "SUCCEEDED"


def test_a_job_that_fails_says_why_and_exits_with_1(instance: Instance, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "x"\n[train]\nstep = 3\n')
    done = instance.run(
        "submit", str(ROOT / "jobs/train_lm.py"), "--working-dir", str(ROOT), "--recipe", str(bad), check=False
    )
    assert done.returncode == 1
    assert "error: recipe" in done.stdout
    assert "unknown field train.step; did you mean steps?" in done.stdout
    assert "Traceback" not in done.stdout


def test_deploying_what_is_not_registered_lists_what_is(instance: Instance) -> None:
    refused = instance.run("deploy", "tiny-pyhton", check=False)
    assert refused.returncode == 1
    assert "registered: " in refused.stderr
    assert "tiny-python" in refused.stderr.partition("registered: ")[2]
    refused = instance.run("undeploy", "tiny-python", check=False)
    assert refused.returncode == 1


def test_a_deployed_model_answers_the_openai_sdk_streaming_or_not(instance: Instance, client: openai.OpenAI) -> None:
    instance.run("deploy", "tiny-python")
    wait_until(
        lambda: "tiny-python" in {model.id for model in client.models.list()}, what="the gateway lists the model"
    )
    raw = client.completions.with_raw_response.create(model="default", prompt="def ", max_tokens=8)
    assert raw.parse().usage.completion_tokens == 8
    assert raw.headers["x-mlaas-provider"] == "local"
    assert raw.headers["x-mlaas-model"] == "tiny-python"
    assert raw.headers["x-mlaas-route-reason"]
    chat = client.chat.completions.create(
        model="tiny-python", messages=[{"role": "user", "content": "import "}], max_tokens=8
    )
    assert chat.choices[0].finish_reason == "length"
    stream = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "import "}], max_tokens=8, stream=True
    )
    chunks = list(stream)
    # One with the role, and one at least with text: the engine joins tokens that nobody has taken yet.
    assert len(chunks) >= 2
    assert chunks[-1].choices[0].finish_reason == "length"


def test_chat_streams_with_this_machines_own_key(instance: Instance) -> None:
    assert instance.run("chat", "def ", "--max-tokens", "8").stdout.strip()


def test_requests_without_a_known_key_or_model_are_refused_in_openais_shape(
    instance: Instance, client: openai.OpenAI
) -> None:
    stranger = client.with_options(api_key="sk-mlaas-unknown")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    with pytest.raises(openai.NotFoundError, match="tiny-python"):
        client.completions.create(model="nope", prompt="x")


def test_a_revoked_key_is_refused_within_seconds(instance: Instance) -> None:
    created = json.loads(instance.run("keys", "create", "--json").stdout)
    wait_until(lambda: healthy(instance, created["key"]), what="the new key is known")
    instance.run("keys", "revoke", created["id"])
    wait_until(lambda: not healthy(instance, created["key"]), what="the revoked key is refused", timeout_s=10)


def test_ray_job_submit_does_the_same_and_the_new_version_replaces_the_old_without_a_gap(
    instance: Instance, recipe: Path, client: openai.OpenAI
) -> None:
    ray = Path(sys.executable).parent / "ray"
    command = [ray, "job", "submit", "--address", instance.settings.dashboard_url, "--working-dir", str(ROOT), "--"]
    job = [*command, "python", "-m", "jobs.train_lm", "--recipe", str(recipe)]
    subprocess.run(job, env=instance.env, check=True, timeout=600, capture_output=True)
    newest = json.loads(instance.run("jobs", "--json").stdout)[0]
    assert newest["entrypoint"].startswith("python -m jobs.train_lm")
    assert newest["status"] == "SUCCEEDED"
    assert [model["version"] for model in tiny_python_versions(instance)] == [2, 1]
    deploying = subprocess.Popen(
        [Path(sys.executable).parent / "mlaas", "deploy", "tiny-python"], env=instance.env, stdout=subprocess.DEVNULL
    )
    try:
        answered = 0
        while deploying.poll() is None:
            client.completions.create(model="tiny-python", prompt="def ", max_tokens=1)
            answered += 1
        assert deploying.returncode == 0
        assert answered > 10
    finally:
        deploying.kill()
        deploying.wait()
    status = {model["version"]: model["status"] for model in tiny_python_versions(instance)}
    assert status == {2: "running", 1: "registered"}


def victims(instance: Instance, name: str) -> list[psutil.Process]:
    return [
        process for process in owned(instance.settings.home) if name in " ".join([process.name(), *process.cmdline()])
    ]


def kill_and_heal(instance: Instance, *names: str) -> None:
    for name in names:
        killed = victims(instance, name)
        assert killed, f"there is no {name}"
        for process in killed:
            os.kill(process.pid, signal.SIGKILL)
    instance.run("up")
    assert all(probe["ok"] for probe in json.loads(instance.run("status", "--json").stdout))


def wait_until_served(client: openai.OpenAI) -> None:
    wait_until(lambda: "tiny-python" in {model.id for model in client.models.list()}, what="the model is served again")
    client.completions.create(model="default", prompt="def ", max_tokens=1)


@pytest.mark.parametrize(
    "names",
    [("haproxy", "mlflow server"), ("ServeReplica:gateway", "ray::SchedulerActor"), ("ServeController",)],
    ids=" and ".join,
)
def test_up_heals_after_kill_9(instance: Instance, client: openai.OpenAI, names: tuple[str, ...]) -> None:
    kill_and_heal(instance, *names)
    wait_until_served(client)


def test_another_machine_joins_and_leaves(instance: Instance, tmp_path: Path) -> None:
    token = {"RAY_AUTH_TOKEN_PATH": instance.env["RAY_AUTH_TOKEN_PATH"]}
    node = Instance(tmp_path, **token)
    try:
        node.run("up", "--address", f"127.0.0.1:{instance.settings.gcs_port}")
        (probe,) = json.loads(node.run("status", "--json").stdout)
        assert probe["part"] == "ray node"
        assert probe["ok"]
    finally:
        node.close()


def test_down_leaves_no_process_and_no_port_and_up_brings_back_what_was_deployed(
    instance: Instance, client: openai.OpenAI
) -> None:
    assert "stopped" in instance.run("down").stdout
    assert owned(instance.settings.home) == []
    assert not (instance.settings.home / "gcs").exists()
    settings = instance.settings
    for port in (settings.gateway_port, settings.dashboard_port, settings.gcs_port, settings.mlflow_port):
        assert port_owner(port) is None
    assert "nothing was running" in instance.run("down").stdout
    instance.run("up")
    wait_until_served(client)


def test_jobs_of_an_earlier_cluster_are_remembered(instance: Instance) -> None:
    jobs = json.loads(instance.run("jobs", "--json").stdout)
    assert [job["status"] for job in jobs] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]


def test_undeploy_stops_the_engine_and_the_model_is_gone_from_the_list(
    instance: Instance, client: openai.OpenAI
) -> None:
    instance.run("undeploy", "tiny-python")
    wait_until(lambda: victims(instance, "vllm") == [], what="the engine has ended")
    wait_until(
        lambda: "tiny-python" not in {model.id for model in client.models.list()}, what="the model is not listed"
    )
    with pytest.raises(openai.APIStatusError) as refused:
        client.completions.create(model="default", prompt="x")
    assert refused.value.status_code == 503


def test_up_brings_the_cluster_back_after_kill_9_of_its_control_store_and_what_died_with_it_is_not_called_running(
    instance: Instance,
) -> None:
    ray = Path(sys.executable).parent / "ray"
    command = [ray, "job", "submit", "--no-wait", "--address", instance.settings.dashboard_url, "--", "sleep", "600"]
    subprocess.run(command, env=instance.env, check=True, timeout=60, capture_output=True)

    def newest() -> dict[str, str]:
        return json.loads(instance.run("jobs", "--json").stdout)[0]

    wait_until(lambda: newest()["status"] == "RUNNING", what="the job to run")
    kill_and_heal(instance, "gcs_server")
    assert newest()["status"] == "FAILED"
    assert "the head that ran it is gone" in newest()["message"]
