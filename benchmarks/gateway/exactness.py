"""Are budgets and limits exact over two replicas, under load, and while processes are killed?

Run from the repository's root: `python -m benchmarks.gateway.exactness`. README.md tells what is measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.fakes.gateway_command import Crowd, GatewayCommand, gateway_command
from tests.waiting import wait_until

Figures = dict[str, Any]

_BUDGET = Decimal("0.01")
_RPM = 600
_WINDOW_S = 60.0


def measure_budget(gateway: GatewayCommand) -> Figures:
    """Let 64 callers spend a cent as fast as they are answered."""
    key = gateway.create_key(budget_usd=_BUDGET, per="day")
    callers = Crowd(url=gateway.url, key=key.key, num_callers=64, seconds=60)
    began_s = time.monotonic()
    callers.run()
    _wait_for_rows(gateway, key.id, callers)
    return {**_money(gateway, key.id, callers, _BUDGET), **_load(callers, since_s=began_s)}


def measure_rate(gateway: GatewayCommand, *, seconds: float) -> Figures:
    """Let 16 callers of a key with a limit on requests go on for more than its window."""
    key = gateway.create_key(rpm=_RPM)
    callers = Crowd(url=gateway.url, key=key.key, num_callers=16, seconds=seconds, pause_s=0.05)
    callers.run()
    # A request is let in between its beginning and its end: both bound how many were let in at once.
    begins = sorted(answer.at_s - answer.duration_s for answer in callers.answered)
    ends = sorted(answer.at_s for answer in callers.answered)
    return {
        "limit": _RPM,
        "most_in_a_window_by_begins": _most_in_a_window(begins),
        "most_in_a_window_by_ends": _most_in_a_window(ends),
        "first_window": sum(end < begins[0] + _WINDOW_S for end in ends),
        "answered": len(ends),
        "seconds": seconds,
        "outcomes": callers.outcomes(),
    }


def measure_faults(gateway: GatewayCommand) -> Figures:
    """Kill a replica and the ledger's actors, without warning, while 64 callers spend a budget."""
    budget = 5 * _BUDGET
    key = gateway.create_key(budget_usd=budget, per="day")
    callers = Crowd(url=gateway.url, key=key.key, num_callers=64, seconds=60)
    began_s = time.monotonic()
    with callers.running():
        callers.wait_for(200)
        gateway.processes("ServeReplica:gateway")[0].kill()
        killed_s = time.monotonic()
        callers.wait_for(500)
        for ledger in gateway.processes("LedgerActor"):
            ledger.kill()
        ledger_killed_s = time.monotonic()
    rows_s = _wait_for_rows(gateway, key.id, callers)
    good = sorted(answer.at_s for answer in callers.answered)
    gaps = [(after - before, before) for before, after in itertools.pairwise(good)]
    longest_s, at_s = max(gaps)
    return {
        **_money(gateway, key.id, callers, budget),
        **_load(callers, since_s=began_s),
        "replica_killed_s": killed_s - began_s,
        "ledger_killed_s": ledger_killed_s - began_s,
        "longest_time_without_a_good_answer_s": longest_s,
        "which_began_at_s": at_s - began_s,
        "rows_complete_after_s": rows_s,
    }


def _money(gateway: GatewayCommand, key_id: str, callers: Crowd, budget: Decimal) -> Figures:
    """Compare what was spent, by the answers and by the ledger, with the budget."""
    spent = sum((cost for *_, cost in gateway.rows(key_id)), Decimal(0))
    refused = [answer for answer in callers.answers if answer.code == "budget_exceeded"]
    first_s = min((answer.at_s for answer in refused), default=float("inf"))
    before = sum((answer.cost_usd for answer in callers.answers if answer.at_s <= first_s), Decimal(0))
    return {
        "budget_usd": float(budget),
        "overspent_usd": float(max(Decimal(0), spent - budget, callers.spent_usd - budget)),
        "spent_share": float(spent / budget),
        "spent_share_at_first_refusal": float(before / budget),
    }


def _load(callers: Crowd, *, since_s: float) -> Figures:
    answered = callers.answered
    durations = sorted(answer.duration_s for answer in answered)
    return {
        "answers_per_s": len(answered) / (max(answer.at_s for answer in answered) - since_s),
        "p50_ms": durations[len(durations) // 2] * 1000,
        "p99_ms": durations[len(durations) * 99 // 100] * 1000,
        "outcomes": callers.outcomes(),
    }


def _wait_for_rows(gateway: GatewayCommand, key_id: str, callers: Crowd) -> float:
    """Wait until each answer has its row in the ledger, end the run if one has two, and return how long it took."""
    began_s = time.monotonic()
    wanted = {answer.request_id for answer in callers.answered}
    wait_until(lambda: wanted <= _request_ids(gateway, key_id), what="a row for each answer", timeout_s=60)
    if len(gateway.rows(key_id)) != len(_request_ids(gateway, key_id)):
        sys.exit("a request has more than one row")
    return time.monotonic() - began_s


def _request_ids(gateway: GatewayCommand, key_id: str) -> set[str]:
    return {request_id for request_id, *_ in gateway.rows(key_id)}


def _most_in_a_window(times_s: Sequence[float]) -> int:
    most = first = 0
    for last, time_s in enumerate(times_s):
        while times_s[first] <= time_s - _WINDOW_S:
            first += 1
        most = max(most, last - first + 1)
    return most


def _describe_run() -> Figures:
    """Return what a reader needs to run it again."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "command": " ".join(["python -m benchmarks.gateway.exactness", *sys.argv[1:]]),
        "commit": commit,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "num_cpus": os.cpu_count(), "load_1min": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "ray": version("ray")},
        "replicas": 2,
    }


def main() -> None:
    """Start the router, measure, print the figures and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=130.0, help="how long the limit on requests is tried")
    parser.add_argument("--rounds", type=int, default=3, help="how often the budget is spent")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "exactness.json")
    options = parser.parse_args()
    result = _describe_run()
    with tempfile.TemporaryDirectory(prefix="bench-") as temp, gateway_command(Path(temp)) as gateway:
        result["start_s"] = gateway.start_s
        result["budget"] = [measure_budget(gateway) for _ in range(options.rounds)]
        result["rate"] = measure_rate(gateway, seconds=options.seconds)
        result["faults"] = measure_faults(gateway)
        began_s = time.monotonic()
        gateway.stop()
        result["stop_s"] = time.monotonic() - began_s
    text = json.dumps(result, indent=2)
    print(text)
    options.out.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
