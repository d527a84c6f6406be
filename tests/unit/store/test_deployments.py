from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.errors import ConfigError
from mlaas.store.deployments import Deployment

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
def test_any_dns_label_is_a_name(name: str) -> None:
    assert Deployment(name=name, model="m", version=1, replicas=1, created_at=NOON).name == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "a b", "é", "a\n", "a" * 64])
def test_anything_else_is_refused_with_the_value(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Deployment(name=name, model="m", version=1, replicas=1, created_at=NOON)
    assert refused.value.code == "bad_deployment_name"
    assert f"name={name!r}" in refused.value.message


@pytest.mark.parametrize("replicas", [0, -1])
def test_a_deployment_without_replicas_is_refused(replicas: int) -> None:
    with pytest.raises(ConfigError, match=f"replicas={replicas} of deployment 'a'"):
        Deployment(name="a", model="m", version=1, replicas=replicas, created_at=NOON)


def test_versions_start_at_one() -> None:
    with pytest.raises(ConfigError, match="version=0 of deployment 'a'"):
        Deployment(name="a", model="m", version=0, replicas=1, created_at=NOON)


@pytest.mark.parametrize(
    "share",
    [{"max_replicas": 1}, {"ttft_slo_s": 1.0}, {"queue": "production"}, {"max_replicas": 4, "ttft_slo_s": 0.0}],
)
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(ConfigError, match="'a'"):
        Deployment(name="a", model="m", version=1, replicas=2, created_at=NOON, **share)
