"""Jobs: submitted to Ray's job API, recorded in the store, which remembers them when the cluster is gone."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from mlaas.errors import NotFound, PlatformError
from mlaas.platform.head import token_header
from mlaas.platform.scripts import module_of
from mlaas.settings import Settings
from mlaas.store.engine import open_store
from mlaas.store.jobs import Job, JobRepository

ENDED = ("STOPPED", "SUCCEEDED", "FAILED")


def submit(settings: Settings, script: Path, arguments: Sequence[str], *, working_dir: Path) -> str:
    """Submit a script of the working directory to run as a module, as `ray job submit` would, and return its id.

    Args:
        settings: the instance.
        script: path of a Python file inside `working_dir`.
        arguments: what the script gets.
        working_dir: folder that Ray uploads, without what its .gitignore names.

    Raises:
        ConfigError: the script does not exist, or lies outside the working directory.
        PlatformError: the cluster does not answer, or refuses the job.
    """
    entrypoint = shlex.join(["python", "-m", module_of(script, working_dir=working_dir), *arguments])
    client = _client(settings)
    try:
        job_id = client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": str(working_dir)})
    except (RuntimeError, ValueError) as error:
        raise PlatformError("submit_failed", f"Ray refused the job `{entrypoint}`: {error}") from error
    now = datetime.now(UTC)
    _repository(settings).put(Job(id=job_id, entrypoint=entrypoint, status="PENDING", message="", submitted_at=now))
    return job_id


def follow(settings: Settings, job_id: str, *, write: Callable[[str], None]) -> Job:
    """Write the job's output as it comes, until the job has ended, and return the job.

    Raises:
        NotFound: the cluster has no such job.
        PlatformError: the cluster does not answer.
    """
    client = _client(settings)
    _require(client, job_id)

    async def tail() -> None:
        async for lines in client.tail_job_logs(job_id):
            write(lines)

    try:
        asyncio.run(tail())
    except RuntimeError as error:
        raise PlatformError("logs_unavailable", f"the log of {job_id} broke off: {error}; see `mlaas jobs`") from error
    return _record(settings, client.get_job_info(job_id))


def read_logs(settings: Settings, job_id: str) -> str:
    """Return what the job has printed so far.

    Raises:
        NotFound: the cluster has no such job.
        PlatformError: the cluster does not answer.
    """
    client = _client(settings)
    _require(client, job_id)
    return str(client.get_job_logs(job_id))


def list_jobs(settings: Settings) -> Sequence[Job]:
    """Return all jobs, newest first: the running cluster's, brought up to date in the store, and those of earlier ones.

    Raises:
        PlatformError: the cluster or the store does not answer.
    """
    repository = _repository(settings)
    known = {job.id: job for job in repository.list()}
    present = {info.submission_id: info for info in _client(settings).list_jobs() if info.submission_id}
    for job_id, info in present.items():
        if job_id not in known or known[job_id].status not in ENDED:
            known[job_id] = _record(settings, info)
    unfinished = [job for job in known.values() if job.status not in ENDED]
    nodes = _live_nodes(settings) if unfinished else set()
    for job in unfinished:
        # A head that was lost and is back lists what died with it as running, on a node that is gone.
        if job.id not in present or present[job.id].driver_node_id not in {None, *nodes}:
            repository.put(_lost(job))
    return repository.list()


def _live_nodes(settings: Settings) -> set[str]:
    """Return Ray's ids of the nodes that are up.

    Raises:
        PlatformError: the cluster does not answer.
    """
    query = {"filter_keys": "state", "filter_predicates": "=", "filter_values": "ALIVE"}
    try:
        answer = httpx.get(f"{settings.dashboard_url}/api/v0/nodes", params=query, headers=token_header(), timeout=10.0)
        answer.raise_for_status()
        return {node["node_id"] for node in answer.json()["data"]["result"]["result"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        text = f"the cluster at {settings.dashboard_url} does not say which nodes it has: {error!r}"
        raise PlatformError("cluster_unavailable", text) from error


def _record(settings: Settings, info: Any) -> Job:
    job = Job(
        id=info.submission_id,
        entrypoint=info.entrypoint,
        status=str(info.status.value),
        message=(info.message or "").partition(", last available logs")[0],
        submitted_at=_time(info.start_time) or datetime.now(UTC),
        finished_at=_time(info.end_time),
    )
    _repository(settings).put(job)
    return job


def _lost(job: Job) -> Job:
    return Job(
        id=job.id,
        entrypoint=job.entrypoint,
        status="FAILED",
        message="the head that ran it is gone; submit it again: a training run resumes at its last checkpoint",
        submitted_at=job.submitted_at,
        finished_at=datetime.now(UTC),
    )


def _require(client: JobSubmissionClient, job_id: str) -> None:
    if job_id not in {info.submission_id for info in client.list_jobs()}:
        text = f"the running cluster has no job {job_id!r}; `mlaas jobs` lists them"
        raise NotFound("job_not_found", text)


def _client(settings: Settings) -> JobSubmissionClient:
    try:
        return JobSubmissionClient(settings.dashboard_url, headers=token_header())
    except (ConnectionError, RuntimeError, AuthenticationError) as error:
        text = f"the cluster at {settings.dashboard_url} does not answer; run `mlaas doctor`"
        raise PlatformError("cluster_unavailable", text) from error


def _repository(settings: Settings) -> JobRepository:
    return JobRepository(open_store(settings.store_url))


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
