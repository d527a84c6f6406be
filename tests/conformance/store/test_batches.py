from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from mlaas.errors import Conflict, NotFound
from mlaas.store.batches import Batch, BatchAnswer, BatchRepository, BatchStatus, FileRepository, StoredFile

NOW = datetime(2026, 7, 1, tzinfo=UTC)
LEASE = timedelta(seconds=30)
FILE = StoredFile(id="file-1", tenant="t", filename="in.jsonl", purpose="batch", num_bytes=3, created_at=NOW)
BATCH = Batch(
    id="batch_1",
    tenant="t",
    key_id="k",
    endpoint="/v1/chat/completions",
    input_file_id="file-1",
    completion_window="24h",
    status=BatchStatus.VALIDATING,
    created_at=NOW,
    expires_at=NOW + timedelta(days=1),
    metadata={"a": "b"},
)
ANSWERS = [
    BatchAnswer(line=2, is_error=True, text='{"custom_id": "b"}'),
    BatchAnswer(line=1, is_error=False, text='{"custom_id": "a"}'),
]


def claim(repository: BatchRepository, owner: str, *, after_s: float = 0) -> Batch | None:
    now = NOW + timedelta(seconds=after_s)
    return repository.claim(owner=owner, now=now, until=now + LEASE)


def record(repository: BatchRepository, owner: str, answers: list[BatchAnswer], *, after_s: float = 0) -> Batch | None:
    now = NOW + timedelta(seconds=after_s)
    return repository.record(BATCH.id, answers, owner=owner, now=now, until=now + LEASE)


def test_files_are_listed_newest_first_in_pages_and_by_tenant(store: Engine) -> None:
    repository = FileRepository(store)
    newer = [replace(FILE, id=f"file-{n}", created_at=NOW + timedelta(seconds=n // 2)) for n in range(2, 6)]
    for file in [FILE, *newer, replace(FILE, id="file-x", tenant="u")]:
        repository.put(file)
    whole = repository.list(tenant="t", purpose=None, after=None, limit=10)
    assert [file.id for file in whole] == ["file-4", "file-5", "file-2", "file-3", "file-1"]
    pages, after = [], None
    while page := repository.list(tenant="t", purpose="batch", after=after, limit=2):
        pages += page
        after = page[-1].id
    assert pages == list(whole)
    assert not repository.list(tenant="t", purpose="other", after=None, limit=2)
    with pytest.raises(NotFound, match="file-x"):
        repository.list(tenant="t", purpose=None, after="file-x", limit=2)


def test_a_file_is_another_tenant_s_business(store: Engine) -> None:
    repository = FileRepository(store)
    repository.put(FILE)
    for forbidden in (repository.get, repository.delete):
        with pytest.raises(NotFound):
            forbidden("file-1", tenant="u")
    assert repository.get("file-1", tenant="t") == FILE


def test_a_file_that_a_batch_reads_stays(store: Engine) -> None:
    files, repository = FileRepository(store), BatchRepository(store)
    files.put(FILE)
    repository.add(BATCH)
    with pytest.raises(Conflict, match="batch_1"):
        files.delete("file-1", tenant="t")
    claim(repository, "w")
    change = {"owner": "w", "now": NOW, "before": BatchStatus.VALIDATING, "changes": {"ended_at": NOW}}
    assert repository.advance(BATCH.id, after=BatchStatus.FAILED, **change) is not None
    files.delete("file-1", tenant="t")
    with pytest.raises(NotFound):
        files.delete("file-1", tenant="t")


def test_one_worker_holds_a_batch_until_its_lease_ends(store: Engine) -> None:
    repository = BatchRepository(store)
    repository.add(BATCH)
    held = claim(repository, "one")
    assert held == replace(BATCH, lease_owner="one", lease_expires_at=NOW + LEASE)
    assert claim(repository, "two", after_s=29) is None
    assert claim(repository, "two", after_s=31) is not None
    assert record(repository, "one", ANSWERS, after_s=32) is None
    assert repository.answered_lines(BATCH.id) == set()
    repository.release(BATCH.id, owner="one")
    assert claim(repository, "three", after_s=33) is None
    repository.release(BATCH.id, owner="two")
    assert claim(repository, "three", after_s=33) is not None


def test_a_worker_whose_lease_has_run_out_writes_nothing_even_if_nobody_took_it(store: Engine) -> None:
    repository = BatchRepository(store)
    repository.add(BATCH)
    claim(repository, "one")
    assert record(repository, "one", ANSWERS, after_s=31) is None
    assert list(repository.answers(BATCH.id)) == []


def test_answers_come_back_in_the_order_of_the_input_and_are_counted(store: Engine) -> None:
    repository = BatchRepository(store)
    repository.add(BATCH)
    claim(repository, "one")
    batch = record(repository, "one", ANSWERS, after_s=5)
    assert batch is not None
    assert (batch.num_completed, batch.num_failed) == (1, 1)
    assert batch.lease_expires_at == NOW + timedelta(seconds=35)
    many = [BatchAnswer(line=line, is_error=False, text="{}") for line in range(3, 2_100)]
    record(repository, "one", many)
    assert [answer.line for answer in repository.answers(BATCH.id)] == list(range(1, 2_100))
    assert repository.answered_lines(BATCH.id) == set(range(1, 2_100))
    change = {"owner": "one", "now": NOW, "before": BatchStatus.VALIDATING, "changes": {}}
    repository.advance(BATCH.id, after=BatchStatus.COMPLETED, **change)
    assert list(repository.answers(BATCH.id)) == []


def test_the_oldest_batch_comes_first_and_ended_ones_never(store: Engine) -> None:
    repository = BatchRepository(store)
    ended = replace(BATCH, id="batch_0", status=BatchStatus.COMPLETED, created_at=NOW - timedelta(days=2))
    older = replace(BATCH, id="batch_2", created_at=NOW - timedelta(days=1))
    for batch in (BATCH, ended, older):
        repository.add(batch)
    claimed = [claim(repository, "w") for _ in range(3)]
    assert [batch and batch.id for batch in claimed] == ["batch_2", "batch_1", None]


def test_a_batch_is_cancelled_once_and_not_after_its_end(store: Engine) -> None:
    repository = BatchRepository(store)
    repository.add(BATCH)
    with pytest.raises(NotFound):
        repository.cancel(BATCH.id, tenant="u", now=NOW)
    cancelled = repository.cancel(BATCH.id, tenant="t", now=NOW)
    assert (cancelled.status, cancelled.cancelling_at) == (BatchStatus.CANCELLING, NOW)
    assert repository.cancel(BATCH.id, tenant="t", now=NOW + LEASE) == cancelled
    claim(repository, "w")
    change = {"owner": "w", "now": NOW, "changes": {"ended_at": NOW}, "after": BatchStatus.CANCELLED}
    assert repository.advance(BATCH.id, before=BatchStatus.VALIDATING, **change) is None
    assert repository.advance(BATCH.id, before=BatchStatus.CANCELLING, **change) is not None
    with pytest.raises(Conflict, match="is cancelled"):
        repository.cancel(BATCH.id, tenant="t", now=NOW)


def test_batches_are_listed_by_tenant(store: Engine) -> None:
    repository = BatchRepository(store)
    repository.add(BATCH)
    repository.add(replace(BATCH, id="batch_2", tenant="u"))
    assert repository.list(tenant="t", after=None, limit=9) == [BATCH]
    assert repository.list(tenant="t", after=BATCH.id, limit=9) == []
    with pytest.raises(NotFound):
        repository.get(BATCH.id, tenant="u")
