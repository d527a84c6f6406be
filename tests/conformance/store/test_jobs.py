from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.exc import StatementError

from mlaas.errors import NotFound
from mlaas.store.jobs import Job, JobRepository

PENDING = Job(
    id="raysubmit_1",
    entrypoint="python -m jobs.train_lm --recipe r.toml",
    status="PENDING",
    message="",
    submitted_at=datetime(2026, 7, 1, tzinfo=UTC),
)


def test_a_job_is_updated_in_place(store: Engine) -> None:
    repository = JobRepository(store)
    failed = replace(PENDING, status="FAILED", message="exit 1", finished_at=PENDING.submitted_at + timedelta(hours=1))
    repository.put(PENDING)
    repository.put(failed)
    assert list(repository.list()) == [failed]


def test_jobs_are_listed_newest_first(store: Engine) -> None:
    repository = JobRepository(store)
    newer = replace(PENDING, id="raysubmit_0", submitted_at=PENDING.submitted_at + timedelta(microseconds=1))
    repository.put(PENDING)
    repository.put(newer)
    assert list(repository.list()) == [newer, PENDING]


def test_an_unknown_job_is_named_with_the_way_to_the_ids(store: Engine) -> None:
    with pytest.raises(NotFound, match=r"'raysubmit_9'.*mlaas jobs"):
        JobRepository(store).get("raysubmit_9")


def test_a_time_without_zone_is_refused(store: Engine) -> None:
    repository = JobRepository(store)
    with pytest.raises(StatementError, match="no time zone"):
        repository.put(replace(PENDING, submitted_at=PENDING.submitted_at.replace(tzinfo=None)))
    assert list(repository.list()) == []


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
TIMES = st.datetimes(timezones=st.timezones()).filter(lambda time: 1 < time.year < 9999)


# The store is shared by the examples on purpose: each one replaces the job of the one before.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(message=TEXT, submitted_at=TIMES, finished_at=st.none() | TIMES)
def test_any_text_and_any_instant_round_trips(
    store: Engine, message: str, submitted_at: datetime, finished_at: datetime | None
) -> None:
    repository = JobRepository(store)
    job = replace(PENDING, message=message, submitted_at=submitted_at, finished_at=finished_at)
    repository.put(job)
    stored = repository.get(job.id)
    utc = (submitted_at.astimezone(UTC), finished_at and finished_at.astimezone(UTC))
    assert stored == replace(job, submitted_at=utc[0], finished_at=utc[1])
