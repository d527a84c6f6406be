"""`python -m mlaas.providers.simulated`: the simulator as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal

from aiohttp import web

from mlaas.providers.simulated.directive import parse_directive
from mlaas.providers.simulated.server import Simulator


def main() -> None:
    """Serve until SIGINT or SIGTERM; the first line printed is the URL."""
    parser = argparse.ArgumentParser(prog="mlaas.providers.simulated", description="Every provider in one server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=0, help="answers and random faults depend on it")
    parser.add_argument("--fault-rate", type=float, default=0.0, help="share of the requests that fail unasked")
    parser.add_argument("--options", default="", help="defaults of the options, such as tokens=500,rate=50")
    arguments = parser.parse_args()
    _, defaults = parse_directive(f"m@{arguments.options}", {})
    simulator = Simulator(seed=arguments.seed, fault_rate=arguments.fault_rate, defaults=defaults)
    asyncio.run(_serve(simulator, arguments.host, arguments.port))


async def _serve(simulator: Simulator, host: str, port: int) -> None:
    runner = web.AppRunner(simulator.app(), handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        print(f"http://{host}:{runner.addresses[0][1]}", flush=True)  # noqa: T201  # what the command is asked for
        await stopped.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
