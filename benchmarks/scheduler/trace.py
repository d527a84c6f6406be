"""Policies side by side on one job trace, each in a process of its own.

python benchmarks/scheduler/trace.py --trace FILE --format philly --nodes 51 --gpus-per-node 8 [--policies sjf,mlaas]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

from results import FOLDER, write_result

FIGURES = ("avg_jct_s", "p50_jct_s", "p99_jct_s", "avg_wait_s", "utilization", "backlog_utilization", "preemptions",
           "lost_work_s", "worst_tenant_slowdown", "fairness_index", "replay_s")  # fmt: skip


def main() -> None:
    """Replay the trace once for each policy, and print and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", required=True)
    parser.add_argument("--format", default="philly")
    parser.add_argument("--nodes", default="51")
    parser.add_argument("--gpus-per-node", default="8")
    parser.add_argument("--cluster", help="YAML file of nodes and queues, instead of equal nodes.")
    parser.add_argument("--policies", default="fifo,easy,sjf,las,fair,srsf-oracle,mlaas")
    parser.add_argument("--estimate-error", default="3")
    parser.add_argument("--restart-cost-s", default="60")
    parser.add_argument("--name", default="philly", help="Of the result file; policies replayed earlier stay in it.")
    arguments = parser.parse_args()
    path = FOLDER / f"{arguments.name}.json"
    rows = {row["policy"]: row for row in json.loads(path.read_text())["figures"]} if path.exists() else {}
    for policy in arguments.policies.split(","):
        rows[policy] = replayed(policy, arguments)
        write_result(arguments.name, list(rows.values()))
        print({key: round(rows[policy][key], 3) for key in FIGURES} | {"policy": policy}, flush=True)
    if {"sjf", "mlaas", "srsf-oracle"} <= rows.keys():
        print(ratios(rows))


def replayed(policy: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Run `mlaas simulate` for one policy."""
    cluster = ["--nodes", arguments.nodes, "--gpus-per-node", arguments.gpus_per_node]
    if arguments.cluster is not None:
        cluster = ["--cluster", arguments.cluster]
    command = [
        sys.executable, "-c", "from mlaas.cli.main import main; main()", "simulate",
        "--trace", arguments.trace, "--format", arguments.format, *cluster,
        "--estimate-error", arguments.estimate_error, "--restart-cost-s", arguments.restart_cost_s,
        "--policy", policy, "--json",
    ]  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout) | {"replay_s": time.perf_counter() - started}


def ratios(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return our policy over its peers, as the goals are stated."""
    ours, sjf, oracle = rows["mlaas"], rows["sjf"], rows["srsf-oracle"]
    return {
        "avg over sjf": round(ours["avg_jct_s"] / sjf["avg_jct_s"], 3),
        "avg over oracle": round(ours["avg_jct_s"] / oracle["avg_jct_s"], 3),
        "p99 over sjf": round(ours["p99_jct_s"] / sjf["p99_jct_s"], 3),
        "worst tenant over sjf": round(ours["worst_tenant_slowdown"] / sjf["worst_tenant_slowdown"], 3),
    }


if __name__ == "__main__":
    main()
