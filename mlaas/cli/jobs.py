"""`mlaas submit`, `jobs`, `logs`: work on the cluster."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlaas.cli.instance import AsJson
from mlaas.settings import load_settings

if TYPE_CHECKING:
    from mlaas.store.jobs import Job


def submit(
    script: Annotated[Path, typer.Argument(help="Python file below the working directory, such as jobs/train_lm.py.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed to the script as they are.")] = None,
    working_dir: Annotated[Path, typer.Option(help="Folder that the job gets a copy of.")] = Path(),
    wait: Annotated[bool, typer.Option(help="Follow the job's output until it has ended.")] = True,
) -> None:
    """Run a script on the cluster, as `ray job submit --working-dir . -- python -m ...` does, and follow its output.

    Exits with 1 when the job fails. Ctrl-C stops following; the job goes on.
    """
    from mlaas.cli.output import console
    from mlaas.platform.jobs import submit as submit_job

    job_id = submit_job(load_settings(), script, arguments or [], working_dir=working_dir.absolute())
    console.print(f"job {job_id}")
    if wait:
        _follow(job_id)


def list_jobs(as_json: AsJson = False) -> None:
    """List jobs, newest first, those of clusters that are gone too."""
    from mlaas.cli.output import show_rows
    from mlaas.platform.jobs import list_jobs as jobs

    rows = [asdict(job) for job in jobs(load_settings())]
    show_rows(rows, as_json=as_json, empty="no jobs yet; `mlaas submit jobs/train_lm.py --recipe ...` starts one")


def logs(
    job_id: Annotated[str, typer.Argument(help="Id of the job, as `mlaas jobs` shows it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """Print what a job has printed."""
    from mlaas.platform.jobs import read_logs

    if follow:
        _follow(job_id)
    else:
        sys.stdout.write(read_logs(load_settings(), job_id))


def _follow(job_id: str) -> None:
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
