"""A Ray head with the real autoscaler on Ray's fake multi-node provider: nodes are raylets on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ray.util import get_node_ip_address

from tests.fakes.serve_cluster import end_tree, free_ports
from tests.waiting import wait_until

HEAD_ID = "f" * 51 + "00000"
"""The id that the provider gives to the head."""


PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


@dataclass(frozen=True, kw_only=True)
class AutoscalingCluster:
    """A running cluster."""

    address: str


@contextlib.contextmanager
def autoscaling_cluster(
    node_types: Mapping[str, Mapping[str, Any]], *, num_head_cpus: int = 1, idle_timeout_s: float = 3.0
) -> Iterator[AutoscalingCluster]:
    """Start a head whose autoscaler may bring nodes of these types, and end all of it.

    Args:
        node_types: As `available_node_types` of Ray's cluster file.
        num_head_cpus: Logical CPUs of the head.
        idle_timeout_s: How long a node may be idle before it goes.
    """
    temp = Path(tempfile.mkdtemp(prefix="as-", dir="/tmp"))
    gcs, agent, agent_grpc, runtime_env, export, client = free_ports(6)
    address = f"{get_node_ip_address()}:{gcs}"
    config = {
        "cluster_name": "fake",
        "max_workers": 8,
        "idle_timeout_minutes": idle_timeout_s / 60,
        "provider": {
            # Not `fake_multinode`: the wheel lacks the defaults that Ray wants for that name.
            "type": "external", "module": PROVIDER, "gcs_address": address, "head_node_id": HEAD_ID,
            "launch_multiple": True, "use_node_id_as_ip": True, "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": num_head_cpus}, "node_config": {}, "max_workers": 0},
            **{name: {"node_config": {}, **dict(each)} for name, each in node_types.items()},
        },
        "auth": {}, "file_mounts": {}, "cluster_synced_files": [], "initialization_commands": [],
        "setup_commands": [], "head_setup_commands": [], "worker_setup_commands": [],
        "head_start_ray_commands": [], "worker_start_ray_commands": [],
    }  # fmt: skip
    (temp / "cluster.json").write_text(json.dumps(config))
    env = {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "RAY_AUTH_MODE": "disabled",  # As `ray.cluster_utils.Cluster`: a test's own process cannot change its token.
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={gcs}"]
    command += [f"--temp-dir={temp / 'ray'}", f"--num-cpus={num_head_cpus}"]
    command += [f"--autoscaling-config={temp / 'cluster.json'}", "--object-store-memory=100000000"]
    command += ["--include-dashboard=false", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--dashboard-agent-grpc-port={agent_grpc}", f"--runtime-env-agent-port={runtime_env}"]
    command += [f"--metrics-export-port={export}", f"--ray-client-server-port={client}", "--disable-usage-stats"]
    log = (temp / "head.log").open("wb")
    head = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:

        def is_up() -> bool:
            if head.poll() is not None:
                raise RuntimeError(f"ray start ended: {(temp / 'head.log').read_text()[-2000:]}")
            return "Ray runtime started" in (temp / "head.log").read_text(errors="replace")

        wait_until(is_up, what="the Ray head", timeout_s=60)
        yield AutoscalingCluster(address=address)
    finally:
        stray = [each for each in psutil.process_iter() if _belongs(each, gcs)]
        end_tree(head.pid)
        for process in stray:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()
        log.close()
        shutil.rmtree(temp, ignore_errors=True)


def _belongs(process: psutil.Process, gcs_port: int) -> bool:
    """Whether a process is of this cluster: raylets that the autoscaler starts are not below the head for ever."""
    with contextlib.suppress(psutil.Error):
        return f":{gcs_port} " in " ".join([*process.cmdline(), ""])
    return False
