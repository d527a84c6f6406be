"""Submitted jobs. Ray forgets its jobs with the cluster; this record stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from mlaas.errors import NotFound
from mlaas.store.engine import transaction, upsert
from mlaas.store.tables import jobs


@dataclass(frozen=True, kw_only=True)
class Job:
    """One submitted job, as it was last seen."""

    id: str
    """Ray's submission id."""
    entrypoint: str
    """Shell command that the job runs."""
    status: str
    """Ray's job status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    message: str
    """Ray's reason for the status; may be empty."""
    submitted_at: datetime
    finished_at: datetime | None = None
    """None: the job has not ended."""


class JobRepository:
    """The jobs of the store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, job: Job) -> None:
        """Store the job in place of the one with its id, if there is one.

        Raises:
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            upsert(connection, jobs, asdict(job))

    def list(self) -> Sequence[Job]:
        """Return all jobs, newest first.

        Raises:
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            rows = connection.execute(select(jobs).order_by(jobs.c.submitted_at.desc(), jobs.c.id)).all()
        return [Job(**row._mapping) for row in rows]

    def get(self, job_id: str) -> Job:
        """Return the job of this id.

        Raises:
            NotFound: no job has this id.
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        if row is None:
            raise NotFound("job_not_found", f"no job has the id {job_id!r}; `mlaas jobs` shows the ids")
        return Job(**row._mapping)
