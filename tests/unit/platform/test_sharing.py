"""How deployments and the router's answer become what the arbitration decides on."""

from dataclasses import asdict
from datetime import UTC, datetime

from ray.serve.schema import ServeDeploySchema

from mlaas.platform.serve import GATEWAY, serve_config
from mlaas.platform.sharing import load_of, share_of
from mlaas.router.choice.demand import demand
from mlaas.router.types import Candidate, EngineLoad, Readiness, Target
from mlaas.scheduler.arbitration.types import Load
from mlaas.scheduler.types import DEFAULT_QUEUE, Resources
from mlaas.serving.applications import replica_application
from mlaas.settings import load_settings
from mlaas.store.deployments import Deployment

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
FIXED = Deployment(name="fixed", model="fixed", version=1, replicas=2, created_at=NOON)
SHARED = Deployment(
    name="tiny", model="tiny", version=3, replicas=1, max_replicas=4, ttft_slo_s=0.5, created_at=NOON
)  # fmt: skip


def test_a_deployment_that_shares_becomes_its_share():
    share = share_of(SHARED, worker=Resources(cpus=1))
    assert (share.name, share.version, share.floor, share.ceiling) == ("tiny", 3, 1, 4)
    assert (share.ttft_slo_s, share.queue, share.worker) == (0.5, DEFAULT_QUEUE, Resources(cpus=1))


def test_what_the_router_publishes_is_read_field_by_field():
    load = EngineLoad(num_running=3, num_waiting=5)
    replica = Candidate(target=Target(provider="local", model="m"), origin="h", readiness=Readiness.READY, engine=load)
    published = asdict(demand("m", [replica], arrivals_per_s=1.0, per_replica=4))
    assert load_of(published) == Load(num_ready=1, num_needed=2, num_waiting=5, num_running=3)


def test_serve_keeps_the_replicas_of_what_shares_and_gets_no_application_for_it(tmp_path):
    settings = load_settings({"MLAAS_HOME": str(tmp_path)})
    replica = replica_application("r1", name="tiny", version=3, node="ab12", resources={"CPU": 1.0})
    config = serve_config(settings, [FIXED, SHARED], replicas=[replica])
    names = [each.name for each in ServeDeploySchema.model_validate(config).applications]
    assert names == [GATEWAY, "model-fixed-v1", "replica-r1"]
