"""An aiohttp application, or the provider simulator, in a thread of its own on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from aiohttp import web

from mlaas.providers.simulated.directive import DEFAULTS, Options
from mlaas.providers.simulated.script import Prompt, Script, write_script
from mlaas.providers.simulated.server import Simulator


@contextlib.contextmanager
def serving(app: web.Application, *, port: int = 0) -> Iterator[str]:
    """Serve an aiohttp application and yield its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        return runner, runner.addresses[0][1]

    runner, bound = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{bound}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def simulating(
    *, seed: int = 0, fault_rate: float = 0.0, defaults: Options = DEFAULTS
) -> Iterator[tuple[str, Simulator]]:
    """Serve the provider simulator and yield its URL and itself."""
    simulator = Simulator(seed=seed, fault_rate=fault_rate, defaults=defaults)
    with serving(simulator.app()) as url:
        yield url, simulator


def simulated_answer(*texts: str) -> Script:
    """Return what the simulator answers to the texts of a prompt, by default."""
    return write_script(Prompt(texts=texts, tools={}), DEFAULTS, seed=0)
