"""Runs and registry against a real MLflow server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow.entities import Metric

from mlaas.errors import ConfigError, NotFound, PlatformError
from mlaas.platform.processes import free_port
from mlaas.tracking.registry import CHAMPION, Registry
from mlaas.tracking.runs import RunLog

if TYPE_CHECKING:
    from tests.integration.conftest import Instance

pytestmark = pytest.mark.cluster


@pytest.fixture
def registry(instance: Instance) -> Registry:
    return Registry(instance.settings.tracking_uri)


def register(instance: Instance, folder: Path, *, name: str) -> tuple[int, str]:
    run = RunLog.open(instance.settings.tracking_uri, experiment="registry-test", folder=folder)
    model = folder / "model"
    (model / "deep").mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text(json.dumps({"from": str(folder)}))
    (model / "deep" / "weights.safetensors").write_bytes(b"\x08" + bytes(100))
    tags = {"data_hash": "abc"}
    return Registry(instance.settings.tracking_uri).register(name, model, run_id=run.run_id, tags=tags), run.run_id


def test_versions_aliases_and_what_is_resolved(instance: Instance, registry: Registry, tmp_path: Path) -> None:
    first, run_id = register(instance, tmp_path / "1", name="m.one")
    second, _ = register(instance, tmp_path / "2", name="m.one")
    assert (first, second) == (1, 2)
    assert registry.resolve("m.one", version=None).version == 2
    registry.set_alias("m.one", CHAMPION, version=1)
    champion = registry.resolve("m.one", version=None)
    assert (champion.version, champion.run_id, champion.aliases) == (1, run_id, (CHAMPION,))
    assert champion.tags["data_hash"] == "abc"
    assert registry.resolve("m.one", version="2").version == registry.resolve("m.one", version=2).version == 2
    assert registry.resolve("m.one", version=CHAMPION).version == 1


def test_registering_a_run_again_makes_no_second_version(instance: Instance, tmp_path: Path) -> None:
    assert register(instance, tmp_path, name="m.again") == register(instance, tmp_path, name="m.again")


def test_unknown_model_and_version_list_what_exists(instance: Instance, registry: Registry, tmp_path: Path) -> None:
    register(instance, tmp_path, name="m.known")
    with pytest.raises(NotFound, match=r"no model 'absent' is registered; registered: .*m\.known"):
        registry.resolve("absent", version=None)
    with pytest.raises(NotFound, match=r"model 'm\.known' has no version 7; it has 1"):
        registry.resolve("m.known", version=7)


def test_download_by_two_at_once_is_whole_and_cached(instance: Instance, registry: Registry, tmp_path: Path) -> None:
    register(instance, tmp_path / "run", name="m.fetched")
    model = registry.resolve("m.fetched", version=None)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: registry.download(model, tmp_path / "cache"), range(4)))
    assert folders == {tmp_path / "cache" / "m.fetched" / "1"}
    (folder,) = folders
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == ["config.json", "deep/weights.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_a_pickle_is_not_registered(instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.data").write_bytes(b"\x80\x04rest")
    with pytest.raises(ConfigError, match=r"weights\.data is a pickle"):
        register(instance, tmp_path, name="m.pickle")


def test_a_run_is_found_again_by_its_folder_and_metrics_are_kept_once(instance: Instance, tmp_path: Path) -> None:
    uri = instance.settings.tracking_uri
    first = RunLog.open(uri, experiment="again", folder=tmp_path)
    metrics = [Metric("loss", 1.5, 1000 + step, step) for step in range(3)]
    first.log_params({"steps": 3})
    first.log_metrics(metrics)
    first.finish(failed=True)
    again = RunLog.open(uri, experiment="again", folder=tmp_path)
    again.log_params({"steps": 3})
    again.log_metrics(metrics)
    again.finish()
    assert again.run_id == first.run_id
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(first.run_id, "loss")] == [0, 1, 2]


def test_server_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(PlatformError, match=f"{uri} failed"):
        Registry(uri).list()
    with pytest.raises(PlatformError, match=f"{uri} failed"):
        RunLog.open(uri, experiment="x", folder=tmp_path)
