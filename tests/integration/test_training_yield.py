"""A run on a cluster of two machines that is asked for its gang: it checkpoints, leaves, and goes on with one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from mlaas.training.data import load_corpus
from mlaas.training.folder import RunFolder, prepare_corpus
from mlaas.training.progress import Entry, Left, Progress, Resumed, read_curve
from mlaas.training.recipes import Recipe, parse_recipe
from mlaas.training.run import train_on_cluster
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

STEPS = 120
ASK_AT_STEP = 15
"""Neither at a report (every 10 steps) nor at a checkpoint (every 50)."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two machines with a CPU each, beside a head with none; their node ids."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        cluster.wait_for_nodes()
        yield [node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU")]
    finally:
        ray.shutdown()
        cluster.shutdown()


@dataclass
class Asked:
    """A gang of two workers that is asked back once, and is one worker after that."""

    nodes: Sequence[str]
    is_lost: bool = False
    is_asked: bool = False
    asked_s: float = 0.0
    freed_s: float = 0.0
    handed_over: int = 0
    done: list[float] = field(default_factory=list)
    ran_on: list[set[str]] = field(default_factory=list)

    @property
    def num_workers(self) -> int:
        return len(self.nodes)

    def node_ids(self) -> Sequence[str]:
        return self.nodes

    def hand_over(self) -> None:
        self.handed_over += 1

    def yield_signal(self) -> object:
        return "asked" if self.is_asked else None

    def yield_and_wait(self) -> None:
        wait_until(lambda: ray.available_resources().get("CPU") == 2, what="the machines are free", timeout_s=20)
        self.freed_s = time.monotonic()
        self.nodes, self.is_asked, self.is_lost = self.nodes[1:], False, False

    def report(self, *, done: float | None = None, left_s: float | None = None) -> None:
        self.done.append(done or 0.0)

    def ask(self) -> None:
        self.asked_s, self.is_asked = time.monotonic(), True
        self.ran_on.append(busy_nodes())


def busy_nodes() -> set[str]:
    """Return the nodes whose CPU is taken."""
    free = ray._private.state.available_resources_per_node()
    return {
        node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU") and not free[node["NodeID"]].get("CPU")
    }


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("text")
    for i in range(30):
        (folder / f"f{i}.py").write_text("".join(f"def f{i}_{j}(x):\n    return x + {i * j}\n\n" for j in range(30)))
    model = {"layers": 2, "width": 64, "heads": 2, "kv_heads": 2, "mlp_width": 128, "context": 64}
    document = {
        "name": "yielding",
        "data": {"path": str(folder), "vocab_size": 400, "validation_percent": 15.0},
        "model": model,
        "train": {"steps": STEPS, "sequences": 8},
        "checkpoint": {"every_steps": 50},
        "gang": {"workers": 2, "min_workers": 1, "device": "cpu"},
    }
    return parse_recipe(document, origin="of the test")


def test_asked_for_its_gang_a_run_checkpoints_frees_the_machines_and_goes_on_smaller_without_losing_a_step(
    cluster: list[str], recipe: Recipe, tmp_path: Path
) -> None:
    folder, gang, entries = RunFolder(tmp_path / "run"), Asked(cluster), []
    folder.path.mkdir()
    prepare_corpus(load_corpus(recipe.data), recipe=recipe, folder=folder)

    def on_entry(entry: Entry) -> None:
        entries.append(entry.event)
        if isinstance(entry.event, Progress) and entry.event.step >= ASK_AT_STEP and not gang.asked_s:
            gang.ask()

    bits = train_on_cluster(recipe=recipe, folder=folder, device="cpu", gang=gang, on_entry=on_entry)
    (left,) = (event for event in entries if isinstance(event, Left))
    assert [event for event in entries if isinstance(event, Resumed)] == [Resumed(step=0), Resumed(step=left.step)]
    curve = read_curve(folder.progress)
    reported = [progress.step for progress in curve]
    assert reported == sorted({*range(10, STEPS + 1, 10), left.step})
    assert bits > 0
    assert curve[-1].loss < curve[0].loss
    assert gang.ran_on == [set(cluster)]
    assert gang.handed_over == 2
    assert gang.done[-1] == 1.0
    freed_s = gang.freed_s - gang.asked_s
    print(f"freed after {freed_s:.2f} s")
    assert freed_s < 10
