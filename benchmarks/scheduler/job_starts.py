"""How fast small jobs start on a real Ray cluster: through the scheduler, and beside it through Ray's own job API.

Run: python benchmarks/scheduler/job_starts.py [--jobs 200] [--peer-jobs 8]

A job is one Python process that prints the time. Its first line is in its log, so no clock of the scheduler's is asked:

- jobs/s: jobs over the time from the first submission to the last first line, with all of them submitted at once;
- start to first line: from the moment the scheduler takes a job out of the queue to the job's own first line.

Both sides run on the same cluster, one after the other, each with its workers warm: one job before the clock starts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from socket import socket
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.job_submission import JobSubmissionClient
from results import write_result

from mlaas.errors import PlatformError
from mlaas.scheduler.on_ray.actor import start_actor
from mlaas.scheduler.on_ray.client import NAMESPACE, SchedulerClient
from mlaas.scheduler.on_ray.parts import log_path
from mlaas.scheduler.requests.spec import Command, WorkloadSpec
from mlaas.scheduler.types import Gang, Resources
from mlaas.settings import ray_token_path
from mlaas.store.engine import migrate

ARGV = (sys.executable, "-c", "import time; print(time.time())")
NUM_CPUS = 8
"""Ray's CPUs are claims: as `mlaas up` starts a small machine."""
POLL_S = 0.05


def main() -> None:
    """Measure both and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--peer-jobs", type=int, default=8)
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="job-starts-"))
    os.environ |= {"MLAAS_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    migrate(f"sqlite:///{home / 'mlaas.db'}")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": NUM_CPUS,
            "object_store_memory": 100_000_000,
            "include_dashboard": True,
            "dashboard_port": _free_port(),
        },
    )
    try:
        ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False, logging_level="error")
        start_actor()
        ours = asyncio.run(_through_scheduler(home, arguments.jobs))
        peer = _through_ray(f"http://{cluster.webui_url}", arguments.peer_jobs)
    finally:
        ray.shutdown()
        cluster.shutdown()
    print("| through | jobs | jobs/s | start to first line p50 | p99 |\n| --- | --- | --- | --- | --- |")
    for name, row in (("the scheduler", ours), ("Ray's job API", peer)):
        print(f"| {name} | {row['jobs']} | {row['jobs_per_s']} | {row['p50_ms']} ms | {row['p99_ms']} ms |")
    write_result("job_starts", {"scheduler": ours, "ray_job_api": peer})


async def _through_scheduler(home: Path, num_jobs: int) -> dict[str, float]:
    client: Any = SchedulerClient()
    spec = WorkloadSpec(gang=Gang(Resources(cpus=1.0)), command=Command(argv=ARGV))

    async def run(job: int) -> tuple[float, float]:
        (record,) = await client.submit(spec, tenant="bench", submission_id=f"job-{job}")
        log = log_path(home, f"{record.id}.1")
        while not (log.exists() and (line := log.read_text()).endswith("\n")):  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(POLL_S)
        return (await client.get(record.id)).started_at.timestamp(), float(line)

    deadline_s = time.monotonic() + 60
    while True:
        try:
            await client.list()
            break
        except PlatformError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(POLL_S)
    await run(-1)
    begun_s = time.time()
    return _figures(begun_s, await asyncio.gather(*(run(job) for job in range(num_jobs))))


def _through_ray(url: str, num_jobs: int) -> dict[str, float]:
    token = ray_token_path().read_text().strip() if ray_token_path().exists() else ""
    client = JobSubmissionClient(url, headers={"authorization": f"Bearer {token}"})

    def run(_job: int) -> tuple[float, float]:
        begun_s = time.time()
        job_id = client.submit_job(entrypoint=shlex.join(ARGV))
        while (status := client.get_job_status(job_id)) != "SUCCEEDED":
            if status == "FAILED":
                raise RuntimeError(client.get_job_info(job_id).message)
            time.sleep(POLL_S * 4)
        return begun_s, float(client.get_job_logs(job_id).strip().splitlines()[-1])

    run(-1)
    begun_s = time.time()
    with ThreadPoolExecutor(num_jobs) as pool:
        return _figures(begun_s, list(pool.map(run, range(num_jobs))))


def _figures(begun_s: float, jobs: list[tuple[float, float]]) -> dict[str, float]:
    to_line_ms = sorted(1000 * (line_s - start_s) for start_s, line_s in jobs)
    return {
        "jobs": len(jobs),
        "jobs_per_s": round(len(jobs) / (max(line_s for _, line_s in jobs) - begun_s), 1),
        "p50_ms": round(to_line_ms[len(jobs) // 2]),
        "p99_ms": round(to_line_ms[min(len(jobs) - 1, int(len(jobs) * 0.99))]),
    }


def _free_port() -> int:
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
