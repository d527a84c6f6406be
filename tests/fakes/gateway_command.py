"""`mlaas gateway` as a user starts it, over the provider simulator, and a crowd of callers who all ask at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import aiohttp
import httpx
import psutil

from mlaas.platform.processes import free_port, owned
from tests.waiting import wait_until

MLAAS = Path(sys.executable).parent / "mlaas"
FOR_GOOD_S = 60.0
"""A refusal that asks for more patience than this is final."""


@dataclass(frozen=True, kw_only=True)
class Limited:
    """A key, as `mlaas keys create --json` prints it."""

    key: str
    id: str


class GatewayCommand:
    """A router with a home, ports and a Ray token of its own. Its model `fast` is GPT-5 mini as the simulator plays it.

    Attributes:
        url: of the API, without `/v1`.
        config: the router's file.
        start_s: from the command's start to its first good answer at `/healthz`.
    """

    def __init__(self, folder: Path, *, upstream: str, num_replicas: int) -> None:
        self.home = folder / "home"
        self.config = folder / "router.yaml"
        self.log = folder / "gateway.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        openai = {"base_url": f"{upstream}/openai/v1", "api_key": "x", "allow_private": True}
        models = {"fast": {"policy": "failover", "targets": ["openai/gpt-5-mini"]}}
        self.write_config({"providers": {"openai": openai}, "models": models})
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLAAS_", "RAY_"))}
        token = {"RAY_AUTH_TOKEN_PATH": str(folder / "ray-token"), "RAY_AUTH_MODE": "token"}
        self.env = {**kept, **token, "MLAAS_HOME": str(self.home)}
        self.arguments = ["gateway", "--config", str(self.config), "--replicas", str(num_replicas)]
        self.start_s = 0.0
        self._began_s = time.monotonic()
        with self.log.open("wb") as log:
            command = [MLAAS, *self.arguments, "--port", str(self.port)]
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)

    def wait(self) -> None:
        """Return when the router has said that it answers, and does."""
        wait_until(self._answers, what="the router")
        self.start_s = time.monotonic() - self._began_s
        wait_until(lambda: "The router answers" in self.log.read_text(), what="the command to say so")

    def write_config(self, config: dict[str, object]) -> None:
        """Replace the router's file, whole."""
        new = self.config.with_suffix(".new")
        new.write_text(json.dumps(config, indent=1))
        new.replace(self.config)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `mlaas` to its end."""
        return subprocess.run(
            [MLAAS, *arguments], env=self.env, capture_output=True, text=True, timeout=120, check=False
        )

    def create_key(self, **limits: object) -> Limited:
        """Create a key, and return once the router knows it."""
        options = [text for name, value in limits.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        done = self.run("keys", "create", "--tenant", "tests", "--json", *options)
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        headers = {"authorization": f"Bearer {made['key']}"}
        # Each replica reads the keys by itself, and nobody chooses which one answers.
        wait_until(
            lambda: all(httpx.get(f"{self.url}/v1/models", headers=headers).is_success for _ in range(10)),
            what="the key to be known",
            timeout_s=20,
        )
        return Limited(key=made["key"], id=made["id"])

    def processes(self, title: str) -> list[psutil.Process]:
        """Return the router's processes whose command line holds this text."""
        found = []
        for process in owned(self.home):
            with contextlib.suppress(psutil.NoSuchProcess):
                if title in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def scale(self, num_replicas: int) -> None:
        """Ask Ray Serve for another number of replicas."""
        with self._serve() as serve:
            application = serve.get("").json()["applications"]["gateway"]["deployed_app_config"]
            application["args"]["replicas"] = num_replicas
            http_options = {"host": "0.0.0.0", "port": self.port}
            config = {"proxy_location": "HeadOnly", "http_options": http_options, "applications": [application]}
            serve.put("", json=config).raise_for_status()

    def replica_states(self) -> list[str]:
        """Return what Ray Serve says of each replica, sorted; nothing while it builds the application."""
        with self._serve() as serve:
            deployments = serve.get("").json()["applications"]["gateway"]["deployments"]
        return sorted(replica["state"] for replica in deployments.get("gateway", {"replicas": []})["replicas"])

    def _serve(self) -> httpx.Client:
        dashboard = re.search(r"ray head\s+(http://\S+)", self.log.read_text())
        assert dashboard is not None
        token = Path(self.env["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
        api = f"{dashboard[1]}/api/serve/applications/"
        return httpx.Client(base_url=api, headers={"authorization": f"Bearer {token}"}, timeout=30)

    def rows(self, key_id: str) -> list[tuple[str, int, Decimal]]:
        """Return request id, status and cost in dollars of each row that the store's ledger has of a key."""
        with contextlib.closing(sqlite3.connect(self.home / "mlaas.db")) as store:
            query = "SELECT request_id, status, cost_pico_usd FROM usage WHERE key_id = ?"
            found = store.execute(query, (key_id,)).fetchall()
        return [(request_id, status, Decimal(cost or 0).scaleb(-12)) for request_id, status, cost in found]

    def stop(self) -> int:
        """Tell the command to end, wait until it has, and return its exit status."""
        self.process.terminate()
        return self.process.wait(60)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/healthz", timeout=5).is_success
        return False


@contextlib.contextmanager
def gateway_command(folder: Path, *, num_replicas: int = 2) -> Iterator[GatewayCommand]:
    """Run the simulator and the router, which is up, until the block ends."""
    simulator = subprocess.Popen(
        [sys.executable, "-m", "mlaas.providers.simulated"], stdout=subprocess.PIPE, text=True, cwd=folder
    )
    try:
        assert simulator.stdout is not None
        gateway = GatewayCommand(folder, upstream=simulator.stdout.readline().strip(), num_replicas=num_replicas)
        try:
            gateway.wait()
            yield gateway
        finally:
            gateway.stop()
    finally:
        simulator.terminate()
        simulator.communicate(timeout=30)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a caller got.

    Attributes:
        at_s: when it came, on the monotonic clock.
        duration_s: how long it took.
        status: 0 when the connection broke.
        code: of the error; the exception's name when the connection broke.
        request_id: sent by the caller.
        retry_after_s: what a refusal says.
    """

    at_s: float
    duration_s: float
    status: int
    code: str
    request_id: str
    cost_usd: Decimal
    retry_after_s: float | None


@dataclass(kw_only=True)
class Crowd:
    """Callers who ask with one key as fast as they are answered, each until it is refused for good or time is up.

    Attributes:
        pause_s: after a refusal, at most.
        is_over: ends it early.
    """

    url: str
    key: str
    num_callers: int
    seconds: float
    pause_s: float = 0.25
    answers: list[Answer] = field(default_factory=list)
    is_over: Callable[[Sequence[Answer]], bool] = lambda _: False

    def run(self) -> None:
        """Return when every caller is done."""
        asyncio.run(self._run())

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run in the background; the block's end waits for every caller."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def wait_for(self, num_answered: int) -> None:
        """Return when so many requests have been answered well."""
        wait_until(lambda: len(self.answered) >= num_answered, what=f"{num_answered} answers", timeout_s=30)

    @property
    def answered(self) -> list[Answer]:
        """Those who got what they asked for."""
        return [answer for answer in self.answers if answer.status == 200]

    @property
    def spent_usd(self) -> Decimal:
        """What the answers cost, as they say."""
        return sum((answer.cost_usd for answer in self.answers), Decimal(0))

    def outcomes(self) -> Counter[str]:
        """Count the answers by status and code."""
        return Counter(f"{answer.status} {answer.code}".strip() for answer in self.answers)

    async def _run(self) -> None:
        ends_s = time.monotonic() + self.seconds
        headers = {"authorization": f"Bearer {self.key}"}
        timeout = aiohttp.ClientTimeout(total=30)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            await asyncio.gather(*(self._call(session, ends_s) for _ in range(self.num_callers)))

    async def _call(self, session: aiohttp.ClientSession, ends_s: float) -> None:
        while time.monotonic() < ends_s and not self.is_over(self.answers):
            answer = await self._ask(session)
            self.answers.append(answer)
            if answer.status == 200:
                continue
            if (answer.retry_after_s or 0.0) > FOR_GOOD_S:
                return
            await asyncio.sleep(min(answer.retry_after_s or self.pause_s, self.pause_s))

    async def _ask(self, session: aiohttp.ClientSession) -> Answer:
        request_id, began_s = uuid.uuid4().hex, time.monotonic()
        body = {"model": "fast", "messages": [{"role": "user", "content": "hello"}]}
        status, code, cost_usd, retry_after = 0, "", Decimal(0), None
        try:
            async with session.post(
                f"{self.url}/v1/chat/completions", json=body, headers={"x-request-id": request_id}
            ) as response:
                text = await response.text()
                status, retry_after = response.status, response.headers.get("retry-after")
                cost_usd = Decimal(response.headers.get("x-mlaas-cost-usd", "0"))
                code = "" if status == 200 else _code(text)
        except (aiohttp.ClientError, TimeoutError) as error:
            code = type(error).__name__
        return Answer(
            at_s=time.monotonic(),
            duration_s=time.monotonic() - began_s,
            status=status,
            code=code,
            request_id=request_id,
            cost_usd=cost_usd,
            retry_after_s=None if retry_after is None else float(retry_after),
        )


def _code(body: str) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return body[:80]
