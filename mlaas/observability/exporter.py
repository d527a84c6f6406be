"""Lets Prometheus reach every process: a port for each, announced in a file that Prometheus watches.

Source: Prometheus' `file_sd_configs`, whose files hold a JSON list of `{"targets": [...], "labels": {...}}`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Protocol

from mlaas.observability.metrics import CONTENT_TYPE

_POLL_S = 0.1

logger = logging.getLogger(__name__)


class Rendered(Protocol):
    """What can be served."""

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""


class Exporter:
    """Serves one process's metrics on a port of its own, without a key: bind it where only operators reach it.

    Args:
        metrics: what is served, at any path.
        folder: where the port is announced, in `<replica>.json`; shared by the replicas of a machine.
        replica: name of this process, unique in the folder.
        host: address to listen on, and that Prometheus is told.
        job: what Prometheus calls processes of this kind.
    """

    def __init__(
        self, metrics: Rendered, *, folder: Path, replica: str, host: str = "127.0.0.1", job: str = "mlaas-router"
    ) -> None:
        self._metrics = metrics
        self._path = folder / f"{replica}.json"
        self._host = host
        self._job = job
        self._server: ThreadingHTTPServer | None = None
        self._thread = Thread()
        self._fd = -1

    def start(self) -> int:
        """Listen, announce the port, and take away what replicas that died have announced.

        Returns:
            The port.

        Raises:
            OSError: the folder cannot be written; the port is served all the same.
        """
        self._server = ThreadingHTTPServer((self._host, 0), _handler(self._metrics))
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_S,), name="metrics", daemon=True)
        self._thread.start()
        self._announce(self._server.server_port)
        return self._server.server_port

    def stop(self) -> None:
        """Take the announcement away and stop listening; without `start` there is nothing to do."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def _announce(self, port: int) -> None:
        folder = self._path.parent
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        announced = [{"targets": [f"{self._host}:{port}"], "labels": {"job": self._job}}]
        new = self._path.with_suffix(".new")
        # The lock dies with the process: a file that nobody holds is of no one.
        self._fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.write(self._fd, json.dumps(announced).encode())
        new.replace(self._path)
        for path in folder.glob("*.json"):
            if path != self._path:
                _remove_if_dead(path)


def _remove_if_dead(path: Path) -> None:
    try:
        with path.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except (BlockingIOError, FileNotFoundError):
        return


def _handler(metrics: Rendered) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics.render()
            self.send_response(200)
            self.send_header("content-type", CONTENT_TYPE)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            logger.debug(format, *args)

    return Handler
