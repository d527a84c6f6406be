"""Which routing policy serves a burst best: cost, time to the first token and share of paid traffic, simulated.

Three local replicas of one model and one external provider get ten minutes of traffic with a burst in the middle. The
simulation is a discrete-event one, without a clock and deterministic: the same seed gives the same figures on every
machine. The router's own code decides (`Fleet.snapshot` and `decide`), with engine readings that are up to a second
old, as in production; only the engines are models.

An engine runs up to 32 requests at a time, others wait. Its speed falls with its batch: each request of a batch of b
gets 60 / (1 + b / 32) tokens a second. The external provider answers after 0.6 s at 90 tokens a second, whatever the
load.

    python benchmarks/gateway/policies.py [--seed N] [--json FILE]
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from mlaas.providers.base import Operation
from mlaas.router.catalog import build_catalog
from mlaas.router.choice.decide import decide
from mlaas.router.choice.fleet import Fleet
from mlaas.router.choice.health import Sign
from mlaas.router.config_file import parse_config
from mlaas.router.types import EngineLoad, LocalEndpoint, Need, Offer, Target, TokenPrice

LENGTH_S, BURST_FROM_S, BURST_TO_S = 600.0, 200.0, 380.0
CALM_PER_S, BURST_PER_S = 4.0, 26.0
NUM_REPLICAS, SLOTS = 3, 32
PROMPT_TOKENS, ANSWER_TOKENS = 600, 250
SLO_TTFT_S = 2.0
MACHINE_HOUR_USD = 1.2
LOCAL, PAID = Target(provider="local", model="m"), Target(provider="openai", model="gpt-5-mini")
PRICES = {
    LOCAL: TokenPrice(input_usd=0.04e-6, output_usd=0.2e-6),
    PAID: TokenPrice(input_usd=0.25e-6, output_usd=2e-6),
}
FILE = f"""
providers:
  openai: {{api_key: simulated, base_url: "https://paid.example/v1"}}
models:
  local only: {{policy: least_loaded, targets: [local/m]}}
  external only: {{targets: [openai/gpt-5-mini]}}
  failover: {{targets: [local/m, openai/gpt-5-mini]}}
  weighted 3 to 1: {{policy: weighted, targets: [{{target: local/m, weight: 3}}, openai/gpt-5-mini]}}
  cheapest (money alone): {{policy: cheapest, targets: [openai/gpt-5-mini, local/m]}}
  fastest (load alone): {{policy: fastest, targets: [local/m, openai/gpt-5-mini]}}
  balanced: {{policy: balanced, targets: [local/m, openai/gpt-5-mini], slo: {{ttft_s: {SLO_TTFT_S}}}}}
  cheapest + burst (both): {{policy: cheapest, targets: [local/m], slo: {{ttft_s: {SLO_TTFT_S}}},
    burst: {{targets: [openai/gpt-5-mini], ttft_s: 1.5, max_queue: 24, return_ratio: 0.5, hold_s: 10}}}}
"""


@dataclass(eq=False, kw_only=True, slots=True)
class Request:
    """One request on its way."""

    at_s: float
    tokens: int
    left: float
    target: Target = LOCAL
    first_s: float = 0.0
    end_s: float = 0.0


@dataclass(eq=False, kw_only=True, slots=True)
class Engine:
    """A replica: a queue, a batch that shares its speed, and the time up to which it has worked."""

    origin: str
    waiting: deque[Request] = field(default_factory=deque)
    batch: list[Request] = field(default_factory=list)
    worked_to_s: float = 0.0
    version: int = 0

    @property
    def speed(self) -> float:
        """Tokens a second of each request in the batch."""
        return 60.0 / (1 + len(self.batch) / SLOTS)

    def work(self, now_s: float) -> list[Request]:
        """Advance to a time and return the requests that are done; the batch is filled again from the queue."""
        step = (now_s - self.worked_to_s) * self.speed
        self.worked_to_s = now_s
        for request in self.batch:
            request.left -= step
        done = [request for request in self.batch if request.left < 1e-6]
        self.batch = [request for request in self.batch if request.left >= 1e-6]
        while self.waiting and len(self.batch) < SLOTS:
            request = self.waiting.popleft()
            request.first_s = now_s + 0.15
            self.batch.append(request)
        self.version += 1
        return done

    def next_s(self) -> float | None:
        """Return when the next request is done, if nothing changes until then."""
        return self.worked_to_s + min(each.left for each in self.batch) / self.speed if self.batch else None


class World:
    """The traffic of one policy."""

    def __init__(self, alias: str, arrivals: list[tuple[float, int]]) -> None:
        catalog = build_catalog(parse_config(FILE, source="policies.py"))
        self.fleet = Fleet(
            catalog,
            restart_wait_s=3.0,
            offer_of=lambda target: Offer(is_external=target == PAID, price=PRICES[target]),
        )
        self.fleet.replace_endpoints([LocalEndpoint(model="m", url=f"http://r{n}") for n in range(NUM_REPLICAS)])
        self.route = catalog.routes[alias]
        self.engines = {f"http://r{n}/v1": Engine(origin=f"http://r{n}/v1") for n in range(NUM_REPLICAS)}
        self.done: list[Request] = []
        self._order = itertools.count()
        self._events: list[tuple[float, int, str, object]] = []
        for at_s, tokens in arrivals:
            self._push(at_s, "arrive", Request(at_s=at_s, tokens=tokens, left=float(tokens)))
        for second in range(int(LENGTH_S) + 1):
            self._push(float(second), "poll", None)

    def run(self) -> list[Request]:
        """Play all events and return the requests in the order of their ends."""
        while self._events:
            now_s, _, kind, item = heapq.heappop(self._events)
            if kind == "poll":
                self._poll(now_s)
            elif kind == "arrive" and isinstance(item, Request):
                self._arrive(item, now_s)
            elif kind == "paid" and isinstance(item, Request):
                self._end(item, "https://paid.example/v1", now_s)
            elif isinstance(item, tuple) and item[0].version == item[1]:
                self._advance(item[0], now_s)
        return self.done

    def _push(self, at_s: float, kind: str, item: object) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), kind, item))

    def _poll(self, now_s: float) -> None:
        for engine in self.engines.values():
            load = EngineLoad(num_running=len(engine.batch), num_waiting=len(engine.waiting))
            self.fleet.replace_engine(engine.origin, load, now_s=now_s)

    def _arrive(self, request: Request, now_s: float) -> None:
        need = Need(input_tokens=PROMPT_TOKENS, output_tokens=ANSWER_TOKENS)
        attempt = decide(self.fleet.snapshot(self.route, Operation.CHAT, now_s=now_s, need=need)).attempts[0]
        request.target = attempt.target
        self.fleet.sent(attempt.origin, now_s=now_s, target=attempt.target)
        if attempt.target == PAID:
            request.first_s = now_s + 0.6
            self._push(request.first_s + request.tokens / 90, "paid", request)
            return
        engine = self.engines[attempt.origin]
        engine.waiting.append(request)
        self._advance(engine, now_s)

    def _advance(self, engine: Engine, now_s: float) -> None:
        for request in engine.work(now_s):
            self._end(request, engine.origin, now_s)
        next_s = engine.next_s()
        if next_s is not None:
            self._push(next_s, "work", (engine, engine.version))

    def _end(self, request: Request, origin: str, now_s: float) -> None:
        request.end_s = now_s
        self.done.append(request)
        self.fleet.ended(origin, Sign.ALIVE, now_s=now_s, target=request.target)
        self.fleet.observe(
            origin,
            target=request.target,
            ttft_s=request.first_s - request.at_s,
            duration_s=now_s - request.at_s,
            output_tokens=request.tokens,
            now_s=now_s,
        )


def make_arrivals(seed: int) -> list[tuple[float, int]]:
    """Return Poisson arrivals with a burst, and the length of each answer."""
    rng, now_s, found = random.Random(seed), 0.0, []
    while now_s < LENGTH_S:
        rate = BURST_PER_S if BURST_FROM_S <= now_s < BURST_TO_S else CALM_PER_S
        now_s += rng.expovariate(rate)
        found.append((now_s, max(20, round(rng.gammavariate(4, ANSWER_TOKENS / 4)))))
    return found


def measure(alias: str, arrivals: list[tuple[float, int]]) -> dict[str, object]:
    """Return the figures of one policy; the machines are paid whether they work or not."""
    done = World(alias, arrivals).run()
    assert len(done) == len(arrivals)
    waits = sorted(each.first_s - each.at_s for each in done)
    paid = [each for each in done if each.target == PAID]
    price = PRICES[PAID]
    api_usd = sum(PROMPT_TOKENS * price.input_usd + each.tokens * price.output_usd for each in paid)
    end_s = max(each.end_s for each in done)
    machines_usd = 0.0 if alias == "external only" else NUM_REPLICAS * MACHINE_HOUR_USD * max(end_s, LENGTH_S) / 3600
    return {
        "policy": alias,
        "api_usd": round(api_usd, 3),
        "total_usd": round(api_usd + machines_usd, 3),
        "ttft_p50_s": round(waits[len(waits) // 2], 2),
        "ttft_p95_s": round(waits[int(len(waits) * 0.95)], 2),
        "within_slo": round(sum(wait <= SLO_TTFT_S for wait in waits) / len(waits), 3),
        "share_external": round(len(paid) / len(done), 3),
    }


def main() -> None:
    """Print one row for each policy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows to this file as well")
    options = parser.parse_args()
    arrivals = make_arrivals(options.seed)
    catalog = build_catalog(parse_config(FILE, source="policies.py"))
    rows = [measure(alias, arrivals) for alias in catalog.routes]
    print(f"{len(arrivals):,} requests in {LENGTH_S:.0f} s, seed {options.seed}")
    print(f"{'policy':26}" + "".join(f"{name:>16}" for name in list(rows[0])[1:]))
    for row in rows:
        print(f"{row['policy']:26}" + "".join(f"{value:>16}" for value in list(row.values())[1:]))
    if options.json is not None:
        options.json.write_text(json.dumps({"seed": options.seed, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
