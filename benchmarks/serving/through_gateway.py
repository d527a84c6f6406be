"""How much of a vLLM server's throughput is left behind the gateway?

Three targets in one run, in turns, on one machine: the gateway, the engine behind it (`direct`), and a server started
with vLLM's own defaults (`stock`). Needs a running instance with one replica of the model deployed, and wrk.

    python benchmarks/serving/through_gateway.py MODEL
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Sequence

import ray
from measure import Load, Target, load, server, store

from mlaas.serving.endpoints import watch_endpoints
from mlaas.serving.types import Endpoint
from mlaas.settings import load_settings

ROUND_S = 10


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    settings = load_settings()
    gateway = Target("gateway", settings.gateway_url, (settings.home / "credentials").read_text())
    endpoint = asyncio.run(first_endpoint(args.model, settings.gcs_port))
    direct = Target("direct", endpoint.url, endpoint.api_key)
    newest = max((settings.models_dir / args.model).iterdir(), key=lambda version: int(version.name))
    with server(args.model, newest, name="stock") as (stock, boot_s):
        targets = [gateway, direct, stock]
        for target in targets:
            load(target, args.model, connections=32, seconds=5)
        results = {}
        for connections in (32, 1):
            rounds = [
                [load(target, args.model, connections=connections, seconds=ROUND_S) for target in targets]
                for _ in range(args.rounds)
            ]
            results[connections] = {
                target.name: summarize([each[i] for each in rounds]) for i, target in enumerate(targets)
            }
    rates = {name: each["requests_per_s"] for name, each in results[32].items()}
    ratios = {f"gateway_to_{name}": round(rates["gateway"] / rates[name], 3) for name in ("direct", "stock")}
    store("through_gateway", {"connections": results, "stock_boot_s": boot_s, **ratios})


async def first_endpoint(model: str, gcs_port: int) -> Endpoint:
    """Return one live endpoint of the model."""
    ray.init(address=f"127.0.0.1:{gcs_port}", log_to_driver=False)
    async for endpoints in watch_endpoints():
        for endpoint in endpoints:
            if endpoint.model == model:
                return endpoint
    raise AssertionError("the watch never ends")


def summarize(rounds: Sequence[Load]) -> dict[str, float]:
    """Return the medians of the rounds."""
    return {
        "requests_per_s": statistics.median(each.requests_per_s for each in rounds),
        "p50_ms": statistics.median(each.p50_ms for each in rounds),
        "errors": sum(each.num_errors for each in rounds),
    }


if __name__ == "__main__":
    main()
