"""Policies side by side on one job trace, each in a process of its own.

python benchmarks/scheduler/trace.py --trace FILE --nodes 51 [--policies sjf,mlaas] [--seeds 0,1,2]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from results import FOLDER, commit, write_result

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
    parser.add_argument("--seeds", default="0", help="Of the estimates' errors.")
    parser.add_argument("--name", default="philly", help="Of the result file; what was replayed earlier stays in it.")
    arguments = parser.parse_args()
    path = FOLDER / f"{arguments.name}.json"
    earlier = json.loads(path.read_text())["figures"] if path.exists() else []
    rows = {(row["policy"], row["seed"]): row for row in earlier}
    for seed in map(int, arguments.seeds.split(",")):
        for policy in arguments.policies.split(","):
            row = rows[policy, seed] = {"seed": seed, "commit": commit()} | replayed(policy, seed, arguments)
            write_result(arguments.name, list(rows.values()))
            print({key: round(row[key], 3) for key in FIGURES} | {"policy": policy, "seed": seed}, flush=True)
        if ("sjf", seed) in rows and ("mlaas", seed) in rows:
            print(ratios({policy: row for (policy, of), row in rows.items() if of == seed}), flush=True)


def replayed(policy: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run `mlaas simulate` for one policy and one draw of estimates."""
    cluster = ["--nodes", arguments.nodes, "--gpus-per-node", arguments.gpus_per_node]
    if arguments.cluster is not None:
        cluster = ["--cluster", arguments.cluster]
    command = [
        sys.executable, "-c", "from mlaas.cli.main import main; main()", "simulate",
        "--trace", arguments.trace, "--format", arguments.format, *cluster,
        "--estimate-error", arguments.estimate_error, "--restart-cost-s", arguments.restart_cost_s,
        "--policy", policy, "--seed", str(seed), "--json",
    ]  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout) | {"replay_s": time.perf_counter() - started}


def ratios(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return our policy over its peers, as the goals are stated."""
    ours, sjf = rows["mlaas"], rows["sjf"]
    over_sjf = {
        f"{name} over sjf": round(ours[key] / sjf[key], 3)
        for name, key in (("avg", "avg_jct_s"), ("p99", "p99_jct_s"), ("worst tenant", "worst_tenant_slowdown"))
    }
    if "srsf-oracle" in rows:
        over_sjf["avg over oracle"] = round(ours["avg_jct_s"] / rows["srsf-oracle"]["avg_jct_s"], 3)
    return over_sjf


if __name__ == "__main__":
    main()
