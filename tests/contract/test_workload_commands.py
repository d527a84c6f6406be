"""The commands for workloads and queues, through a running gateway."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mlaas.cli.main import app
from mlaas.errors import MlaasError
from mlaas.scheduler.on_ray.packages import package_path
from mlaas.scheduler.on_ray.parts import log_path
from mlaas.scheduler.requests.document import encode_spec, parse_spec
from tests.fakes.control_plane import Platform, running_platform

QUEUES = "queues: {default: {guarantee: {gpus: 4}}, night: {weight: 0.5}}\n"


@pytest.fixture
def platform(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A platform that is this machine's instance."""
    with running_platform(tmp_path) as running:
        monkeypatch.setenv("MLAAS_HOME", str(tmp_path))
        monkeypatch.setenv("MLAAS_GATEWAY_PORT", running.gateway.url.rpartition(":")[2])
        monkeypatch.setenv("MLAAS_API_KEY", running.gateway.key)
        monkeypatch.chdir(tmp_path)
        yield running


def run(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(app, arguments, **options)


def shown(*arguments: str, **options: Any) -> str:
    result = run(*arguments, **options)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def told(command: str, *arguments: str) -> Any:
    return json.loads(shown(command, "--json", *arguments))


def refused(*arguments: str) -> MlaasError:
    error = run(*arguments).exception
    assert isinstance(error, MlaasError), error
    return error


def test_flags_a_file_and_python_say_the_same(platform: Platform, tmp_path: Path) -> None:
    flags = ["--name", "llama", "--kind", "train", "--workers", "1..2", "--gpus", "2", "--cpus", "3", "--memory", "0"]
    flags += ["--priority", "high", "--estimate", "2h", "--deadline", "6h", "--retries", "2", "--strategy", "spread"]
    flags += ["--env", "A=b=c", "--env", "D=", "--not-preemptible"]
    [by_flags] = told("submit", *flags, "--", "python", "train.py", "--epochs", "3")
    file = tmp_path / "llama.yaml"
    file.write_text(
        "name: llama\nkind: train\nworkers: 1..2\ngpus: 2\ncpus: 3\npriority: high\nestimate: 2h\ndeadline: 6h\n"
        "retries: 2\nstrategy: SPREAD\nenvironment: {A: b=c, D: ''}\npreemptible: false\n"
        "command: [python, train.py, --epochs, '3']\n"
    )
    [by_file] = told("submit", "-f", str(file))
    spec = parse_spec(
        {
            "name": "llama",
            "kind": "train",
            "workers": "1..2",
            "gpus": 2,
            "cpus": 3,
            "priority": "high",
            "estimate": 7200,
            "deadline": 21600,
            "retries": 2,
            "strategy": "SPREAD",
            "environment": {"A": "b=c", "D": ""},
            "preemptible": False,
            "command": ["python", "train.py", "--epochs", "3"],
        }
    )
    assert by_flags["spec"] == by_file["spec"] == encode_spec(spec)


def test_a_script_with_a_flag_of_the_scheduler_becomes_a_workload(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "train.py").write_text("print(1)")
    (tmp_path / "project").mkdir()
    (tmp_path / "jobs").rename(tmp_path / "project" / "jobs")
    folder = ["--working-dir", str(tmp_path / "project")]
    [workload] = told("submit", "jobs/train.py", "--recipe", "r.toml", "--gpus", "1", *folder, "--", "--name", "own")
    assert workload["spec"]["command"] == ["python", "-m", "jobs.train", "--recipe", "r.toml", "--name", "own"]
    assert workload["name"] == ""
    archive = package_path(platform.home, workload["spec"]["working_dir"])
    assert zipfile.ZipFile(archive).namelist() == ["jobs/train.py"]
    [again] = told("submit", "jobs/train.py", "--gpus", "1", *folder)
    assert again["spec"]["working_dir"] == workload["spec"]["working_dir"]


def test_flags_go_before_a_file_whose_folders_are_its_own(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "specs" / "code").mkdir(parents=True)
    (tmp_path / "specs" / "code" / "a.txt").write_text("a")
    file = tmp_path / "specs" / "two.yaml"
    file.write_text("- {name: a, command: 'true', working_dir: code}\n- {name: b, command: 'true', gpus: 3}\n")
    first, second = told("submit", "-f", str(file), "--gpus", "1")
    assert [(each["name"], each["spec"]["gpus"]) for each in (first, second)] == [("a", 1), ("b", 1)]
    assert package_path(platform.home, first["spec"]["working_dir"]).exists()
    assert "working_dir" not in second["spec"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["submit"], "there is nothing to run"),
        (["submit", "--gpus", "1"], "there is nothing to run"),
        (["submit", "--gpu", "1", "--", "true"], "there is no flag --gpu, did you mean '--gpus'?"),
        (["submit", "--gpus", "lots", "--", "true"], "flags: gpus: 'lots' is not a finite number"),
        (["submit", "--label", "rack", "--", "true"], "--label rack: write it as KEY=VALUE"),
        (["submit", "--queue", "no", "--", "true"], "no queue 'no'"),
        (["submit", "-f", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["submit", "no/script.py", "--gpus", "1"], "no/script.py does not exist below"),
        (["explain", "w-no"], "no workload has the id"),
        (["apply", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["queue", "--key", "sk-wrong"], "API key"),
        (["queue", "--url", "http://127.0.0.1:9"], "no gateway answers at http://127.0.0.1:9"),
    ],
)
def test_what_is_wrong_is_said_with_the_way_out(platform: Platform, arguments: list[str], said: str) -> None:
    assert said in refused(*arguments).message


def test_a_file_that_is_wrong_is_refused_with_its_line(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: a\ncommand: 'true'\nworker: 3\n")
    assert "bad.yaml:3: worker: unknown field 'worker', did you mean 'workers'" in refused("plan", "bad.yaml").message


@pytest.fixture
def crowd(platform: Platform) -> Callable[[str], str]:
    """Workloads that fill the cluster, and two that wait; by name."""
    ids = {}
    for name, arguments in (
        ("first", ["--gpus", "4", "--workers", "2"]),
        ("later", ["--gpus", "4", "--workers", "2"]),
        ("urgent", ["--gpus", "4", "--priority", "high"]),
    ):
        [workload] = told("submit", "--name", name, *arguments, "--", "true")
        ids[name] = workload["id"]
        if name == "first":
            platform.wait_for(workload["id"], "running")
    return ids.__getitem__


def test_the_queue_shows_what_runs_then_what_waits_by_its_turn_and_why(platform: Platform, crowd) -> None:
    rows = told("queue")
    assert [(row["name"], row["state"], row["position"]) for row in rows] == [
        ("first", "running", None),
        ("urgent", "pending", 1),
        ("later", "pending", 2),
    ]
    lines = shown("queue").splitlines()
    assert lines[0].split() == ["turn", "id", "name", "state", "for", "tenant", "queue", "priority", "gang", "why"]
    assert [line.split()[0] for line in lines[2:]] == ["1", "2"]
    assert "2 x 4 GPUs" in lines[3]
    assert all(len(line.split("  ")[-1]) > 10 for line in lines[2:])
    assert told("queue", "--state", "running")[0]["name"] == "first"
    assert [line.split()[0] for line in shown("queue", "--limit", "2").splitlines()[2:]] == ["1", "and"]


def test_who_may_not_see_others_work_is_told_how_much_runs_and_waits_and_that_serving_goes_first(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, workers in ((1, 2), (2, 1)):
        replica = {"kind": "serve", "gpus": 4, "workers": workers, "priority": "serving", "preemptible": False}
        asyncio.run(platform.scheduler.submit(parse_spec(replica), tenant="serving", submission_id=f"serve-{number}"))
    platform.wait_for("serve-1", "running")
    [mine] = told("submit", "--gpus", "1", "--", "true")
    beside = "beside these, serving: 1 running (8 GPUs, 100% of the cluster), 1 waiting"
    assert [line.split()[0] for line in shown("queue").splitlines()] == ["turn", "2", "beside"]
    assert shown("queue").splitlines()[-1] == beside
    assert "serve-2 (serving, 4 GPUs): priority 1000 against 0" in shown("explain", mine["id"])
    monkeypatch.setenv("MLAAS_API_KEY", platform.other_key)
    assert shown("queue").splitlines() == [
        "nothing waits and nothing runs", f"{beside}; other tenants: 0 running, 1 waiting",
    ]  # fmt: skip
    monkeypatch.setenv("MLAAS_API_KEY", platform.admin_key)
    assert "beside these" not in shown("queue")


def test_explain_says_what_is_missing_who_goes_first_and_what_would_help(platform: Platform, crowd) -> None:
    text = shown("explain", crowd("later"))
    assert text.startswith(f"{crowd('later')} is pending")
    for said in ("0 of 2 workers fit now", crowd("urgent"), "priority 100 against 0", "what would start it now:"):
        assert said in text
    assert told("explain", crowd("first"))["running"]["since_s"] >= 0


def test_a_plan_changes_nothing(platform: Platform, crowd) -> None:
    assert "0 of 1 worker fit now" in shown("plan", "--gpus", "4")
    [planned] = told("plan", "--cpus", "1")
    assert planned["queued"]["starts_now"] is True
    assert len(told("queue")) == 3


def test_events_logs_and_cancel(platform: Platform, crowd) -> None:
    first = crowd("first")
    assert [event["kind"] for event in told("events", first)] == ["submitted", "placed", "running"]
    assert "2 workers placed" in shown("events", first)
    log = log_path(platform.home, f"{first}.1")
    log.parent.mkdir(parents=True)
    log.write_bytes(b"one\ntwo\n")
    assert shown("logs", first) == "one\ntwo\n"
    assert shown("logs", first, "--tail", "1") == "two\n"
    platform.scheduler.cluster.end(f"{first}.1", 3, "two")
    platform.wait_for(first, "failed")
    followed = run("logs", "-f", first)
    assert (followed.exit_code, followed.stdout) == (1, "one\ntwo\n")
    assert f"{first} first is failed" in followed.stderr
    assert f"{crowd('later')} later is cancelled" in shown("cancel", crowd("later"))
    assert told("cancel", first)[0]["state"] == "failed"


def test_the_log_of_an_array_is_that_of_each_index_below_its_name(platform: Platform) -> None:
    array_id = told("submit", "--array", "0-1", "--", "true")[0]["parent_id"]
    for index in (0, 1):
        platform.wait_for(f"{array_id}-{index}", "running")
        log = log_path(platform.home, f"{array_id}-{index}.1")
        log.parent.mkdir(parents=True)
        log.write_text(f"I am {index}\n")
    printed = run("logs", array_id)
    assert printed.stdout == "I am 0\nI am 1\n"
    assert printed.stderr.splitlines() == [f"==> {array_id}-0 <==", f"==> {array_id}-1 <=="]
    assert f"{array_id}-1  placed" in shown("events", array_id)
    assert shown("explain", array_id).startswith("array of 2: 2 running")


def test_submit_may_wait_for_the_end(platform: Platform) -> None:
    platform.scheduler.cluster.on_call = lambda verb: (
        [platform.scheduler.cluster.end(lease_id) for lease_id in platform.scheduler.cluster.running]
        if verb == "started_command"
        else None
    )
    done = run("submit", "--wait", "--name", "quick", "--array", "0-1", "--", "true")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("is succeeded") == 2


def test_top_shows_nodes_gangs_queues_and_tenants(platform: Platform, crowd) -> None:
    text = shown("top", "--once")
    assert "2 nodes · 8 of 8 GPUs used (100%) · 1 running · 2 waiting · 0 idle" in text
    for said in ("n0", "██████████ 4/4", crowd("first"), "default", "tests", "share of the cluster"):
        assert said in text
    assert "…" not in text
    assert told("top")["used_gpus"] == 8


def test_apply_shows_the_difference_asks_and_puts_it_in_force(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queues.yaml").write_text(QUEUES)
    assert refused("apply", "queues.yaml").code == "admin_only"
    monkeypatch.setenv("MLAAS_API_KEY", platform.admin_key)
    declined = run("apply", "queues.yaml", input="n\n")
    assert declined.exit_code == 1
    assert "+ queue night" in declined.output
    assert "+ queue night" in shown("apply", "queues.yaml", "--dry-run")
    assert any(change["subject"] == "queue night" for change in told("apply", "queues.yaml")["changes"])
    with platform.client(platform.admin_key) as client:
        assert client.queues()["number"] == 0
        assert shown("apply", "queues.yaml", input="y\n").endswith("in force\n")
        assert client.queues()["number"] == 1
    assert shown("apply", "queues.yaml", "--yes") == "nothing would change\n"
