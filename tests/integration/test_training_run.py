"""Training on a real cluster: a run that nothing disturbs, and runs that are killed and must end as that one did."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from mlaas.platform.processes import owned
from mlaas.tracking.registry import CHAMPION, Registry, find_pickle
from mlaas.training.progress import Left, ProgressReader, Resumed, read_curve
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.integration.conftest import Instance

pytestmark = pytest.mark.cluster

MLAAS = Path(sys.executable).parent / "mlaas"
DEADLINE_S = 400.0
STEPS = 300
CHECKPOINT_EVERY = 50

RECIPE = """
name = "test-run"
[data]
path = "{data}"
vocab_size = 400
validation_percent = 15.0
[model]
layers = 2
width = 64
heads = 2
kv_heads = 2
mlp_width = 128
context = 64
[train]
steps = {steps}
sequences = 8
[checkpoint]
every_steps = {every}
[gang]
device = "cpu"
"""

QUEUES = """
queues: {default: {}}
priority_classes: {urgent: 1000}  # no less than serving's: it does not wait for anybody's minimum runtime
"""


class Runs:
    """Submits one recipe again and again, each time as a run of its own once the one before is finished."""

    def __init__(self, instance: Instance, recipe: Path) -> None:
        self.instance = instance
        self.recipe = recipe

    def submit(self) -> subprocess.Popen[str]:
        command = [MLAAS, "submit", "jobs/train_lm.py", "--recipe", self.recipe]
        return subprocess.Popen(
            command, env=self.instance.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def finish(self, job: subprocess.Popen[str]) -> tuple[str, dict]:
        """Wait for a job and return its output and the outcome in its last line."""
        output, _ = job.communicate(timeout=DEADLINE_S)
        assert job.returncode == 0, output
        return output, json.loads(next(line for line in reversed(output.splitlines()) if line.startswith('{"model"')))

    def folder(self, number: int) -> Path:
        return next(self.instance.settings.runs_dir.glob("test-run-*")) / str(number)

    def wait_for_step(self, number: int, step: int) -> None:
        def reached() -> bool:
            found = list(self.instance.settings.runs_dir.glob(f"test-run-*/{number}/progress.jsonl"))
            curve = read_curve(found[0]) if found else []
            return bool(curve) and curve[-1].step >= step

        wait_until(reached, what=f"run {number} at step {step}", timeout_s=DEADLINE_S)

    def next_number(self) -> int:
        """Return the number that a run submitted now would get."""
        numbers = [int(path.name) for path in self.instance.settings.runs_dir.glob("test-run-*/*")]
        return max(numbers, default=0) + 1

    def processes(self, needle: str) -> list[psutil.Process]:
        return [p for p in owned(self.instance.settings.home) if needle in " ".join(p.cmdline())]


@pytest.fixture(scope="module")
def runs(instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("training")
    data = folder / "data"
    data.mkdir()
    for i in range(60):
        (data / f"f{i}.py").write_text("".join(f"def f{i}_{j}(x):\n    return x + {i * j}\n\n" for j in range(30)))
    (data / "latin.py").write_bytes("# caf\xe9\n".encode("latin-1"))
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(data=data, steps=STEPS, every=CHECKPOINT_EVERY))
    return Runs(instance, recipe)


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> Iterator[tuple[str, dict]]:
    return runs.finish(runs.submit())


def weights(outcome: dict) -> bytes:
    return (Path(outcome["folder"]) / "model" / "model.safetensors").read_bytes()


def curve(outcome: dict) -> list[tuple[int, float]]:
    return [(p.step, p.loss) for p in read_curve(Path(outcome["folder"]) / "progress.jsonl")]


def test_run_shows_progress_and_beats_gzip_on_easy_text(undisturbed: tuple[str, dict]) -> None:
    output, outcome = undisturbed
    assert "skipped 1 not UTF-8: latin.py" in output
    assert f"step 300/{STEPS}  loss " in output
    assert " tokens/s  ETA 0:00" in output
    assert outcome["bits_per_byte"]["model"] < outcome["bits_per_byte"]["gzip"]
    assert "Traceback" not in output


def test_model_is_registered_as_champion_with_lineage_and_without_pickle(
    instance: Instance, undisturbed: tuple[str, dict], tmp_path: Path
) -> None:
    _, outcome = undisturbed
    registry = Registry(instance.settings.tracking_uri)
    model = registry.resolve("test-run", version=None)
    assert (model.version, model.run_id) == (outcome["version"], outcome["run_id"])
    assert CHAMPION in model.aliases
    assert model.tags["data_hash"] == outcome["data_hash"]
    assert len(model.tags["git_commit"]) >= 40
    folder = registry.download(model, tmp_path)
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert find_pickle(folder) is None


def test_run_is_in_mlflow_with_params_metrics_and_pictures(instance: Instance, undisturbed: tuple[str, dict]) -> None:
    from mlflow import MlflowClient

    _, outcome = undisturbed
    client = MlflowClient(tracking_uri=instance.settings.tracking_uri)
    run = client.get_run(outcome["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["train.steps"] == str(STEPS)
    assert run.data.metrics["bits_per_byte.model"] == outcome["bits_per_byte"]["model"]
    assert [m.step for m in client.get_metric_history(outcome["run_id"], "loss")] == [s for s, _ in curve(outcome)]
    assert {"loss.png", "bits_per_byte.png", "model"} <= {
        item.path for item in client.list_artifacts(outcome["run_id"])
    }


def test_killed_worker_costs_no_more_than_the_steps_since_the_checkpoint(
    runs: Runs, undisturbed: tuple[str, dict]
) -> None:
    number = runs.next_number()
    job = runs.submit()
    runs.wait_for_step(number, CHECKPOINT_EVERY + 10)
    runs.processes("RayTrainWorker")[0].send_signal(signal.SIGKILL)
    output, outcome = runs.finish(job)
    assert "resumed after step" in output
    assert outcome["folder"] == str(runs.folder(number))
    assert weights(outcome) == weights(undisturbed[1])
    assert curve(outcome) == curve(undisturbed[1])


def test_killed_driver_and_torn_checkpoint_submitted_again_ends_as_it_would_have(
    runs: Runs, undisturbed: tuple[str, dict]
) -> None:
    number = runs.next_number()
    job = runs.submit()
    runs.wait_for_step(number, 2 * CHECKPOINT_EVERY + 10)
    for driver in runs.processes("jobs.train_lm"):
        driver.send_signal(signal.SIGKILL)
    job.communicate(timeout=DEADLINE_S)
    assert job.returncode == 1
    wait_until(lambda: not runs.processes("RayTrainWorker"), what="the killed job's workers are gone")
    newest = sorted((runs.folder(number) / "checkpoints").glob("step-*"))[-1]
    torn = max(newest.glob("rank-*"), key=lambda path: path.stat().st_size)
    torn.write_bytes(torn.read_bytes()[:1000])
    output, outcome = runs.finish(runs.submit())
    assert f"{newest} is refused: {torn.name} has 1,000 bytes" in output
    assert f"resumed after step {int(newest.name[5:]) - CHECKPOINT_EVERY}," in output
    assert outcome["folder"] == str(runs.folder(number))
    assert weights(outcome) == weights(undisturbed[1])


def test_an_urgent_workload_has_the_cluster_within_seconds_and_the_run_loses_no_step(
    runs: Runs, undisturbed: tuple[str, dict], tmp_path: Path
) -> None:
    instance, number = runs.instance, runs.next_number()
    queues = tmp_path / "queues.yaml"
    queues.write_text(QUEUES)
    admin_key = instance.first_up.stdout.split()[-1]
    instance.run("apply", str(queues), "--yes", "--key", admin_key)
    (node,) = json.loads(instance.run("top", "--json").stdout)["nodes"]
    all_cpus = dict(node["capacity"])["CPU"] - dict(node["outside"]).get("CPU", 0)
    job = runs.submit()
    runs.wait_for_step(number, 10)
    urgent = instance.run(
        "submit", "--priority", "urgent", "--cpus", str(all_cpus), "--wait", "--", "date", "+started at %s.%N"
    )
    output, outcome = runs.finish(job)

    accepted, *_ = json.loads(instance.run("events", urgent.stdout.split()[0], "--json").stdout)
    started_s = float(urgent.stdout.partition("started at ")[2].split()[0])
    waited_s = started_s - datetime.fromisoformat(accepted["at"]).timestamp()
    print(f"the urgent workload ran {waited_s:.1f} s after it was submitted")
    assert waited_s < 20
    entries = [entry.event for entry in ProgressReader(runs.folder(number) / "progress.jsonl").read_new()]
    (left,) = (event for event in entries if isinstance(event, Left))
    assert [event.step for event in entries if isinstance(event, Resumed)] == [0, left.step]
    assert f"resumed after step {left.step}, from its checkpoint" in output
    assert weights(outcome) == weights(undisturbed[1])


def test_checkpoint_that_cannot_be_written_ends_the_run_with_its_reason(
    runs: Runs, undisturbed: tuple[str, dict]
) -> None:
    folder = runs.folder(1).parent / str(runs.next_number())
    folder.mkdir()
    (folder / "checkpoints").write_text("in the way")
    job = runs.submit()
    output, _ = job.communicate(timeout=DEADLINE_S)
    assert job.returncode == 1
    assert f"error: checkpoint {folder}/checkpoints/step-{CHECKPOINT_EVERY:08d} was not written: File exists" in output
    assert "resumed after" not in output
    assert output.count(f"step  {CHECKPOINT_EVERY}/{STEPS}") == 1, "it was tried again"
