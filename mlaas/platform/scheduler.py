"""The scheduler of an instance: a detached Ray actor on the head, with the arbitration loop beside it.

`python -m mlaas.platform.scheduler` starts it, in a process of its own: whoever joins a Ray cluster as a driver cannot
join another one later.
"""

from __future__ import annotations

import subprocess
import sys

import httpx

from mlaas.errors import PlatformError
from mlaas.platform.head import driver_environment, token_header
from mlaas.platform.parts import Probe
from mlaas.settings import Settings

ACTOR_NAME = "scheduler"
START_S = 120.0


class Scheduler:
    """The instance's global scheduler. Ray starts it anew when it dies, so this part is down only while that fails."""

    name = "scheduler"
    start_timeout_s = 120.0

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def probe(self) -> Probe:
        """Ask Ray whether the actor lives."""
        fix = "run `mlaas up`"
        url = f"{self._settings.dashboard_url}/api/v0/actors"
        query = {"filter_keys": "name", "filter_predicates": "=", "filter_values": ACTOR_NAME, "detail": "true"}
        try:
            answer = httpx.get(url, params=query, headers=token_header(), timeout=5.0)
            answer.raise_for_status()
            actors = answer.json()["data"]["result"]["result"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            return Probe(part=self.name, ok=False, detail=f"Ray does not say ({type(error).__name__})", fix=fix)
        states = {actor["state"]: actor for actor in actors if actor["ray_namespace"] == "mlaas"}
        if alive := states.get("ALIVE"):
            restarts = int(alive.get("num_restarts") or 0)
            return Probe(part=self.name, ok=True, detail="leads" + (f"; started anew {restarts} x" if restarts else ""))
        waits = sorted(states.keys() - {"DEAD"})
        return Probe(part=self.name, ok=False, detail=f"is {waits[0].lower()}" if waits else "not running", fix=fix)

    def start(self) -> None:
        """Start the actor, unless Ray is starting it already.

        Raises:
            PlatformError: the cluster cannot be reached.
        """
        log = self._settings.logs_dir / "scheduler-start.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{self._settings.gcs_port}"
        environment = driver_environment(self._settings, address=address)
        with log.open("wb") as out:
            command = [sys.executable, "-m", "mlaas.platform.scheduler"]
            try:
                done = subprocess.run(
                    command, env=environment, stdout=out, stderr=subprocess.STDOUT, timeout=START_S, check=False
                )
            except subprocess.TimeoutExpired as error:
                raise PlatformError(
                    "scheduler_start_timeout", f"it was not started in {START_S:g} s; see {log}"
                ) from error
        if done.returncode != 0:
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise PlatformError("scheduler_start_failed", f"the scheduler does not start ({log}):\n" + "\n".join(last))


def main() -> None:
    """Start the scheduler of the cluster that `RAY_ADDRESS` names."""
    import ray

    from mlaas.platform.sharing import build_companions
    from mlaas.scheduler.on_ray.actor import start_actor
    from mlaas.scheduler.on_ray.client import NAMESPACE

    ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
    start_actor(build_companions)


if __name__ == "__main__":
    main()
