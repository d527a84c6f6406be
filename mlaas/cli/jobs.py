"""`mlaas jobs`, `logs`: what runs on the cluster, and what it has printed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mlaas.cli.connection import Key, Url, connect
from mlaas.cli.instance import AsJson
from mlaas.errors import NotFound
from mlaas.settings import load_settings

if TYPE_CHECKING:
    from mlaas.api.client import ControlPlane
    from mlaas.store.jobs import Job

_RAY_JOB_PREFIX: Final = "raysubmit_"
"""Of the ids that Ray gives to jobs."""


def list_jobs(as_json: AsJson = False) -> None:
    """List jobs of Ray's job API, newest first, those of clusters that are gone too. `mlaas queue` lists workloads."""
    from mlaas.cli.output import show_rows
    from mlaas.platform.jobs import list_jobs as jobs

    rows = [asdict(job) for job in jobs(load_settings())]
    show_rows(rows, as_json=as_json, empty="no jobs yet; `mlaas submit jobs/train_lm.py --recipe ...` starts one")


def logs(
    job_id: Annotated[str, typer.Argument(help="Id of a workload or job, as `mlaas queue` or `mlaas jobs` shows it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    attempt: Annotated[int, typer.Option(min=0, help="Which start of a workload; 0: the present or last one.")] = 0,
    rank: Annotated[int, typer.Option(min=0, help="Which worker of a workload's gang.")] = 0,
    tail: Annotated[int, typer.Option(min=0, help="Only the last lines of a workload's log; 0: all.")] = 0,
    key: Key = "",
    url: Url = "",
) -> None:
    """Print what a workload or a job has printed."""
    if not job_id.startswith(_RAY_JOB_PREFIX):
        with connect(url=url, key=key) as client:
            if ids := _workload_ids(client, job_id):
                read = partial(_print_log, client, attempt=attempt, rank=rank, tail=tail)
                are_fine = [follow_workload(client, each) if follow else read(each) for each in _titled(ids)]
                if not all(are_fine):
                    raise typer.Exit(1)
                return
    _print_job(job_id, follow=follow)


def submit_job(script: Path, arguments: Sequence[str], *, working_dir: Path, wait: bool = True) -> None:
    """Run a script by Ray's job API and follow its output; exit with 1 when it fails."""
    from mlaas.cli.output import console
    from mlaas.platform.jobs import submit

    job_id = submit(load_settings(), script, arguments, working_dir=working_dir.absolute())
    console.print(f"job {job_id}")
    if wait:
        _follow_job(job_id)


def _follow_job(job_id: str) -> None:
    from mlaas.cli.output import console
    from mlaas.platform.jobs import follow

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        job: Job = follow(load_settings(), job_id, write=write)
    except KeyboardInterrupt:
        console.print(f"\nthe job goes on; `mlaas logs -f {job_id}` follows it again")
        raise typer.Exit(130) from None
    if job.status != "SUCCEEDED":
        console.print(f"job {job_id} {job.status}: {job.message}", markup=False, style="red")
        raise typer.Exit(1)


def follow_workload(client: ControlPlane, workload_id: str) -> bool:
    """Print what a workload prints until it has ended, and beside it why it waits; return whether it has succeeded."""
    from mlaas.api.following import follow
    from mlaas.cli.output import console, errors
    from mlaas.cli.workload_text import headline

    def tell(record: dict[str, Any]) -> None:
        errors.print(headline(record))

    try:
        record = follow(client, workload_id, write=_write, tell=tell)
    except KeyboardInterrupt:
        console.print(f"\nit goes on; `mlaas logs -f {workload_id}` follows it again, `mlaas cancel` ends it")
        raise typer.Exit(130) from None
    return bool(record["state"] == "succeeded")


def _print_log(client: ControlPlane, workload_id: str, *, attempt: int, rank: int, tail: int) -> bool:
    """Print what there is of one attempt's log; return that it was there."""
    piece = client.read_log(workload_id, attempt=attempt, rank=rank, num_lines=tail)
    while piece.text:
        _write(piece.text)
        piece = client.read_log(workload_id, attempt=piece.attempt, rank=rank, offset=piece.next_offset)
    return True


def _print_job(job_id: str, *, follow: bool) -> None:
    from mlaas.platform.jobs import read_logs

    if follow:
        _follow_job(job_id)
    else:
        sys.stdout.write(read_logs(load_settings(), job_id))


def _write(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def _workload_ids(client: ControlPlane, job_id: str) -> Sequence[str]:
    """Return the workloads of an id: itself, the indexes of an array, or none, for Ray's job API may know it."""
    from mlaas.scheduler.requests.quantities import parse_array

    try:
        record = client.get(job_id)
    except NotFound:
        return ()
    if record["array_index"] is not None or "array" not in record["spec"]:
        return (job_id,)
    return [f"{job_id}-{index}" for index in parse_array(record["spec"]["array"])]


def _titled(ids: Sequence[str]) -> Iterator[str]:
    """Yield ids; of several, each below its own heading on standard error."""
    from mlaas.cli.output import errors

    for each in ids:
        if len(ids) > 1:
            errors.print(f"==> {each} <==", style="bold")
        yield each
