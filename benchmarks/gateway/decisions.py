"""What a decision costs a request: `Fleet.snapshot` and `decide`, in microseconds of processor time.

python benchmarks/gateway/decisions.py
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial
from time import process_time

from mlaas.providers.base import Operation
from mlaas.router.catalog import build_catalog
from mlaas.router.choice.decide import decide
from mlaas.router.choice.decision_log import snapshot_to_json
from mlaas.router.choice.fleet import Fleet
from mlaas.router.config_file import parse_config
from mlaas.router.types import Need, Offer, Route, RoutingPolicy, Target, TokenPrice

TIMES, REPEATS = 5_000, 9
NEED = Need(task="code", input_tokens=100, output_tokens=50)
OFFER = Offer(is_external=True, price=TokenPrice(input_usd=1e-6, output_usd=2e-6), quality={"code": 0.8})
FILE = f"""
providers:
  a: {{kind: openai_compatible, base_url: "http://127.0.0.1:1/v1"}}
  b: {{kind: openai_compatible, base_url: "http://127.0.0.1:2/v1"}}
models:
{"".join(f"  {policy.value}: {{policy: {policy.value}, targets: [a/m, b/m]}}" + chr(10) for policy in RoutingPolicy)}
  failover with burst: {{targets: [a/m], burst: {{targets: [b/m], max_queue: 8, ttft_s: 1}}}}
"""


def main() -> None:
    """Print one row for a named target and for each policy over two targets."""
    catalog = build_catalog(parse_config(FILE, source="decisions.py"))
    fleet = Fleet(catalog, restart_wait_s=3.0, offer_of=lambda target: OFFER)
    for provider, port in (("a", 1), ("b", 2)):
        for _ in range(64):
            fleet.observe(
                f"http://127.0.0.1:{port}/v1",
                target=Target(provider=provider, model="m"),
                ttft_s=0.1,
                duration_s=1.1,
                output_tokens=50,
                now_s=0.0,
            )
    print(f"{'route':24}{'us':>8}{'to log it':>12}")
    for name in ("a/m", *catalog.routes):
        route = catalog.resolve(name, local_models=())
        shot = fleet.snapshot(route, Operation.CHAT, now_s=1.0, need=NEED)
        once = measure(partial(choose, fleet, route))
        print(f"{name:24}{once:8.1f}{measure(partial(snapshot_to_json, shot)):12.1f}")


def choose(fleet: Fleet, route: Route) -> None:
    """Do what each request does."""
    decide(fleet.snapshot(route, Operation.CHAT, now_s=1.0, need=NEED))


def measure(work: Callable[[], object]) -> float:
    """Return the best of several runs, in microseconds for one call."""
    return min(timeit.repeat(work, timer=process_time, number=TIMES, repeat=REPEATS)) / TIMES * 1e6


if __name__ == "__main__":
    main()
