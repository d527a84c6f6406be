"""The cluster-launcher files are accepted by Ray's own reader, and start nodes with our commands."""

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILES = sorted((Path(__file__).parents[3] / "cluster" / "autoscaler").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ray_accepts_the_file_and_nodes_start_with_mlaas_up(path: Path):
    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    assert config["head_start_ray_commands"][-1].endswith("mlaas up")
    assert config["worker_start_ray_commands"][-1].endswith("mlaas up --address $RAY_HEAD_IP:6379")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_labels_tell_the_node_types_apart(path: Path):
    types = yaml.safe_load(path.read_text()).get("available_node_types", {})
    labels = [tuple(sorted(each.get("labels", {}).items())) for each in types.values()]
    assert len(set(labels)) == len(labels)
