"""A run on two machines that is asked for its gang, goes on with one, loses that, and comes to its end all the same."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import ray
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
from ray.autoscaler.sdk import request_resources
from ray.cluster_utils import Cluster
from ray.experimental import internal_kv

from mlaas.scheduler.on_ray.coordinator import take_coordinators_place
from mlaas.training.data import load_corpus
from mlaas.training.folder import RunFolder, prepare_corpus
from mlaas.training.progress import Entry, Left, Progress, Resumed, read_curve
from mlaas.training.recipes import Recipe, parse_recipe
from mlaas.training.run import train_on_cluster
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

STEPS = 600
CHECKPOINT_EVERY = 200
ASK_AT_STEP = 10
LOSE_AT_STEP = 220
WANTED = {"CPU": 7.0}
"""What the scheduler asks of the autoscaler meanwhile."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two machines with a CPU each, beside a head with none; their node ids."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        cluster.wait_for_nodes()
        take_coordinators_place()
        request_resources(bundles=[WANTED])
        yield [node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU")]
    finally:
        ray.shutdown()
        cluster.shutdown()


@dataclass
class Troubled:
    """A gang of two workers that is asked back, then is one worker, is lost, and is one worker again."""

    nodes: Sequence[str]
    is_lost: bool = False
    is_asked: bool = False
    asked_s: float = 0.0
    freed_s: float = 0.0
    num_handed_over: int = 0
    done: list[float] = field(default_factory=list)
    busy: list[set[str]] = field(default_factory=list)
    """Machines in use when it was asked back, and when it was lost."""

    @property
    def num_workers(self) -> int:
        return len(self.nodes)

    def node_ids(self) -> Sequence[str]:
        return self.nodes

    def hand_over(self) -> None:
        self.num_handed_over += 1

    def yield_signal(self) -> object:
        return "asked" if self.is_asked else None

    def yield_and_wait(self) -> None:
        wait_until(lambda: not busy_nodes(), what="the machines are free", timeout_s=20)
        self.freed_s = self.freed_s or time.monotonic()
        self.nodes, self.is_asked, self.is_lost = self.nodes[-1:], False, False

    def report(self, *, done: float | None = None, left_s: float | None = None) -> None:
        self.done.append(done or 0.0)

    def follow(self, event: Progress) -> None:
        if event.step >= ASK_AT_STEP and len(self.busy) == 0:
            self.busy.append(busy_nodes())
            self.asked_s, self.is_asked = time.monotonic(), True
        if event.step >= LOSE_AT_STEP and len(self.busy) == 1:
            self.busy.append(busy_nodes())
            self.is_lost = True


def busy_nodes() -> set[str]:
    """Return the nodes whose CPU is taken."""
    free = ray._private.state.available_resources_per_node()
    return {
        node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU") and not free[node["NodeID"]].get("CPU")
    }


def asked_for() -> list[dict[str, float]]:
    """Return the bundles in the autoscaler's slot."""
    slot = internal_kv._internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL)
    bundles: list[dict[str, float]] = json.loads(slot)
    return bundles


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
        "checkpoint": {"every_steps": CHECKPOINT_EVERY},
        "gang": {"workers": 2, "min_workers": 1, "device": "cpu"},
    }
    return parse_recipe(document, origin="of the test")


@dataclass(frozen=True)
class Ran:
    """A run that is over, and what came of it."""

    gang: Troubled
    events: list[Progress | Left | Resumed]
    curve: list[Progress]
    bits: float

    @property
    def left(self) -> Left:
        (left,) = (event for event in self.events if isinstance(event, Left))
        return left


@pytest.fixture(scope="module")
def ran(cluster: list[str], recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder, gang = RunFolder(tmp_path_factory.mktemp("run")), Troubled(cluster)
    prepare_corpus(load_corpus(recipe.data), recipe=recipe, folder=folder)
    events: list[Progress | Left | Resumed] = []

    def on_entry(entry: Entry) -> None:
        events.append(entry.event)
        if isinstance(entry.event, Progress):
            gang.follow(entry.event)

    bits = train_on_cluster(recipe=recipe, folder=folder, device="cpu", gang=gang, on_entry=on_entry)
    return Ran(gang, events, read_curve(folder.progress), bits)


def test_asked_for_its_gang_it_frees_the_machines_within_seconds(ran: Ran, cluster: list[str]) -> None:
    assert ran.gang.busy[0] == set(cluster)
    freed_s = ran.gang.freed_s - ran.gang.asked_s
    print(f"freed after {freed_s:.2f} s")
    assert freed_s < 10


def test_it_goes_on_smaller_after_the_very_step_it_left_at(ran: Ran) -> None:
    assert ASK_AT_STEP <= ran.left.step < CHECKPOINT_EVERY
    resumed = [event.step for event in ran.events if isinstance(event, Resumed)]
    assert resumed[:2] == [0, ran.left.step]
    assert len(ran.gang.busy[1]) == 1


def test_a_lost_gang_costs_the_steps_since_the_last_checkpoint_and_the_next_one_finishes(ran: Ran) -> None:
    resumed = [event.step for event in ran.events if isinstance(event, Resumed)]
    assert resumed[2:] in ([CHECKPOINT_EVERY], [2 * CHECKPOINT_EVERY])
    assert [progress.step for progress in ran.curve] == sorted({*range(10, STEPS + 1, 10), ran.left.step})
    assert ran.curve[-1].loss < ran.curve[0].loss
    assert ran.bits > 0
    assert ran.gang.num_handed_over == 3
    assert ran.gang.done[-1] == 1.0


def test_the_autoscaler_is_still_asked_for_what_the_scheduler_wants_and_for_nothing_else(ran: Ran) -> None:
    assert asked_for() == [WANTED]
