"""What is counted is what was decided, under names that are defined."""

from collections import Counter

from hypothesis import given, settings
from prometheus_client.parser import text_string_to_metric_families

from mlaas.observability.definitions import SCHEDULER, STORE_ERRORS
from mlaas.observability.meters import Meters
from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.metrics import observe
from mlaas.scheduler.types import Gang, Move, Node, Place, Preempt, Queue, Resources, Shrink, Workload
from tests.fakes.worlds import POLICY, apply, ledgers


def counted(meters: Meters) -> dict[str, dict[tuple[str, ...], float]]:
    """Return every sample by the values of its labels, in the order of the labels' names."""
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(meters.render().decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return samples


@settings(max_examples=60)
@given(ledger=ledgers)
def test_every_workload_is_counted_once(ledger: Ledger) -> None:
    snapshot, meters = ledger.snapshot(), Meters()
    decision = decide(snapshot, POLICY)
    observe(meters, snapshot, decision, decision_s=0.01, held_back={"guests": 2})
    found = counted(meters)
    kinds = Counter(type(action) for action in decision.actions)
    assert sum(found["mlaas_scheduler_pending"].values()) == len(snapshot.pending) - kinds[Place] + 2
    assert min(found["mlaas_scheduler_pending"].values()) >= 0
    assert found["mlaas_scheduler_pending"]["guests", "held-back"] == 2
    assert sum(found["mlaas_scheduler_running"].values()) == len(snapshot.running)
    assert sum(found.get("mlaas_scheduler_preemptions_total", {}).values()) == sum(
        kinds[kind] for kind in (Preempt, Shrink, Move)
    )
    assert sum(found.get("mlaas_scheduler_wait_seconds_count", {}).values()) == kinds[Place]
    assert sum(found["mlaas_scheduler_gpus"].values()) * 10_000 == snapshot.cluster.gpu_units
    assert 0.0 <= found["mlaas_scheduler_gpu_utilization_ratio"][()] <= 1.0


def test_a_preemption_costs_its_restart_and_names_are_those_defined() -> None:
    ledger, meters = Ledger([Node("n", Resources(gpus=4.0))], [Queue("q")]), Meters()
    ledger.submit(Workload("low", Gang(Resources(gpus=4.0)), 0.0, queue="q", restart_cost_s=30.0, min_runtime_s=0.0))
    apply(ledger, decide(ledger.snapshot(), POLICY))
    ledger.advance(10.0)
    ledger.submit(Workload("high", Gang(Resources(gpus=4.0)), 10.0, queue="q", priority=3))
    observe(meters, ledger.snapshot(), decide(ledger.snapshot(), POLICY), decision_s=0.3, held_back={})
    meters.add(STORE_ERRORS)
    found = counted(meters)
    assert found["mlaas_scheduler_lost_gpu_seconds_total"] == {("q",): 120.0}
    assert found["mlaas_scheduler_preemptions_total"] == {("yield", "q"): 1.0}
    assert found["mlaas_scheduler_decision_seconds_bucket"]["0.2",] == 0.0
    assert found["mlaas_scheduler_decision_seconds_bucket"]["0.5",] == 1.0
    assert found["mlaas_scheduler_store_errors_total"] == {(): 1.0}
    families = {family.name for family in text_string_to_metric_families(meters.render().decode())}
    assert families <= {definition.name.removesuffix("_total") for definition in SCHEDULER}
