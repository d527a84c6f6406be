from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from mlaas.errors import NotFound
from mlaas.store.deployments import Deployment, DeploymentRepository

TINY = Deployment(
    name="tiny-python", model="tiny-python", version=3, replicas=1, created_at=datetime(2026, 7, 1, tzinfo=UTC)
)


def test_a_stored_deployment_comes_back_equal(store: Engine) -> None:
    repository = DeploymentRepository(store)
    repository.put(TINY)
    assert repository.get("tiny-python") == TINY


def test_a_share_of_the_cluster_comes_back_equal(store: Engine) -> None:
    repository = DeploymentRepository(store)
    shared = replace(TINY, max_replicas=4, ttft_slo_s=0.5, queue="production")
    repository.put(shared)
    assert repository.get("tiny-python") == shared


def test_putting_a_name_again_replaces_it(store: Engine) -> None:
    repository = DeploymentRepository(store)
    scaled = replace(TINY, version=4, replicas=2, created_at=datetime(2026, 7, 2, tzinfo=UTC))
    repository.put(TINY)
    repository.put(scaled)
    assert list(repository.list()) == [scaled]


def test_deployments_are_listed_by_name(store: Engine) -> None:
    repository = DeploymentRepository(store)
    for name in ("b", "c", "a"):
        repository.put(replace(TINY, name=name))
    assert [deployment.name for deployment in repository.list()] == ["a", "b", "c"]


def test_a_deleted_deployment_is_gone(store: Engine) -> None:
    repository = DeploymentRepository(store)
    repository.put(TINY)
    repository.delete("tiny-python")
    assert list(repository.list()) == []


@pytest.mark.parametrize("operation", ["get", "delete"])
def test_an_unknown_name_is_refused_with_the_names_that_exist(store: Engine, operation: str) -> None:
    repository = DeploymentRepository(store)
    repository.put(TINY)
    with pytest.raises(NotFound, match="'tiny'; deployed: tiny-python"):
        getattr(repository, operation)("tiny")


def test_what_is_in_the_way_is_noted_of_the_very_deployment_and_goes_with_it(store: Engine) -> None:
    repository = DeploymentRepository(store)
    repository.note_obstacle(TINY, "never deployed")
    repository.put(TINY)
    repository.note_obstacle(TINY, "no quota")
    assert repository.get(TINY.name).obstacle == "no quota"
    again = replace(TINY, created_at=TINY.created_at + timedelta(seconds=1))
    repository.put(again)
    repository.note_obstacle(TINY, "of the one before")
    assert repository.list() == [again]
