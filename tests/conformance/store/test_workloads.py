from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mlaas.errors import Conflict, NotFound, PlatformError
from mlaas.store.engine import open_store
from mlaas.store.workloads import QueueUsage, WorkloadEvent, WorkloadRecord, WorkloadRepository

NOW = datetime(2026, 11, 23, 4, 30, tzinfo=UTC)
RECORD = WorkloadRecord(
    id="w",
    tenant="vision",
    queue="research",
    kind="train",
    name="resnet",
    spec={"gang": {"worker": {"gpus": 0.5}, "labels": [["accelerator", "a100"]]}},
    priority=7,
    state="pending",
    reason="waits for its turn",
    submitted_at=NOW,
    sequence=0,
)
SUBMITTED = WorkloadEvent(workload_id="w", at=NOW, kind="submitted", text="by vision", detail={"queue": "research"})


@pytest.fixture
def repository(store: Engine) -> WorkloadRepository:
    return WorkloadRepository(store)


@pytest.fixture
def epoch(repository: WorkloadRepository) -> int:
    return repository.lead()


def named(*ids: str) -> list[WorkloadRecord]:
    return [replace(RECORD, id=workload_id) for workload_id in ids]


def test_what_was_stored_comes_back_equal(repository: WorkloadRepository, epoch: int) -> None:
    full = replace(
        RECORD,
        preempts=False,
        parent_id="p",
        array_index=3,
        attempt=2,
        num_failures=1,
        num_preemptions=4,
        not_before_at=NOW + timedelta(seconds=1),
        started_at=NOW + timedelta(seconds=2),
        ended_at=NOW + timedelta(seconds=3),
        yield_by_at=NOW + timedelta(microseconds=1),
        placement=[["node-a", 2], ["node-b", 1]],
        holder="job-1",
        holder_seen_at=NOW,
        attained_s=0.1,
        waited_s=2.5,
        restart_owed_s=60.0,
        exit_code=-9,
        version=5,
    )
    stored = repository.insert([full], [SUBMITTED], epoch=epoch)
    assert stored == (replace(full, sequence=1),)
    assert repository.get("w") == stored[0]
    assert repository.events("w") == [replace(SUBMITTED, number=1)]
    with pytest.raises(NotFound, match="'nothing'"):
        repository.get("nothing")


def test_the_store_gives_the_order_of_submission(repository: WorkloadRepository, epoch: int) -> None:
    repository.insert(named("b", "a"), [], epoch=epoch)
    repository.insert(named("c"), [], epoch=epoch)
    assert [(record.id, record.sequence) for record in repository.active()] == [("b", 1), ("a", 2), ("c", 3)]
    assert [record.id for record in repository.list(limit=2)] == ["c", "a"]


def test_an_update_changes_what_happens_and_never_what_was_asked(repository: WorkloadRepository, epoch: int) -> None:
    (stored,) = repository.insert([RECORD], [SUBMITTED], epoch=epoch)
    running = replace(stored, state="running", attempt=1, placement=[["n", 1]], started_at=NOW)
    event = WorkloadEvent(workload_id="w", at=NOW, kind="running", text="on n")
    (changed,) = repository.update([replace(running, spec={}, tenant="thief", sequence=99)], [event], epoch=epoch)
    assert repository.get("w") == replace(running, version=1)
    assert changed.version == 1
    assert [event.kind for event in repository.events("w")] == ["submitted", "running"]
    repository.update([replace(running, version=1, placement=None)], [], epoch=epoch)
    assert repository.get("w").placement is None


def test_events_are_numbered_upwards_and_read_from_a_point_on(repository: WorkloadRepository, epoch: int) -> None:
    repository.insert(named("a", "b"), [replace(SUBMITTED, workload_id=name) for name in "abab"], epoch=epoch)
    repository.update([], [replace(SUBMITTED, workload_id="a", text="last")], epoch=epoch)
    events = repository.events("a")
    numbers = [event.number for event in events]
    assert (len(numbers), numbers) == (3, sorted(set(numbers)))
    assert repository.events("a", after=numbers[1]) == [events[2]]
    assert repository.events("a", after=numbers[2]) == []


def test_a_stale_record_changes_nothing_of_the_whole_write(repository: WorkloadRepository, epoch: int) -> None:
    a, b = repository.insert(named("a", "b"), [], epoch=epoch)
    repository.update([replace(b, state="running")], [], epoch=epoch)
    for stale in (b, replace(b, id="never-there")):
        with pytest.raises(Conflict) as refused:
            repository.update([replace(a, state="failed"), stale], [replace(SUBMITTED, workload_id="a")], epoch=epoch)
        assert refused.value.code == "workload_changed"
    assert repository.get("a") == a
    assert repository.get("b").state == "running"
    assert repository.events("a") == []


def test_one_record_cannot_be_changed_twice_in_one_write(repository: WorkloadRepository, epoch: int) -> None:
    (stored,) = repository.insert([RECORD], [], epoch=epoch)
    with pytest.raises(Conflict, match="read it again"):
        repository.update([replace(stored, state="running"), replace(stored, state="failed")], [], epoch=epoch)
    assert repository.get("w") == stored


def test_an_id_that_is_taken_is_refused_and_shows_what_has_it(repository: WorkloadRepository, epoch: int) -> None:
    (stored,) = repository.insert([RECORD], [], epoch=epoch)
    with pytest.raises(Conflict) as refused:
        repository.insert([*named("new"), replace(RECORD, spec={})], [SUBMITTED], epoch=epoch)
    assert refused.value.code == "workload_exists"
    assert repository.list_submission("w") == [stored]
    assert repository.list_submission("new") == []
    assert repository.events("w") == []


def test_an_array_has_its_id_for_itself(repository: WorkloadRepository, epoch: int) -> None:
    array = [replace(RECORD, id=f"a-{index}", parent_id="a", array_index=index) for index in (2, 0)]
    stored = repository.insert(array, [], epoch=epoch)
    assert repository.list_submission("a") == list(stored)
    assert [record.array_index for record in repository.list(parent_id="a")] == [0, 2]
    for taken in (named("a"), named("a-2"), [replace(RECORD, id="a-1", parent_id="a")]):
        with pytest.raises(Conflict) as refused:
            repository.insert(taken, [], epoch=epoch)
        assert refused.value.code == "workload_exists"
    repository.insert(named("b"), [], epoch=epoch)
    with pytest.raises(Conflict, match="b exists"):
        repository.insert([replace(RECORD, id="b-0", parent_id="b")], [], epoch=epoch)
    with pytest.raises(Conflict, match="given twice"):
        repository.insert(named("c", "c"), [], epoch=epoch)
    assert {record.id for record in repository.list()} == {"a-0", "a-2", "b"}


def test_lists_are_narrowed_by_tenant_and_state(repository: WorkloadRepository, epoch: int) -> None:
    states = {"a": "pending", "b": "running", "c": "yielding", "d": "starting", "e": "failed", "f": "cancelled"}
    records = [replace(RECORD, id=key, state=state, tenant=f"t-{key}") for key, state in states.items()]
    repository.insert(records, [], epoch=epoch)
    assert [record.id for record in repository.active()] == ["a", "b", "c", "d"]
    assert [record.id for record in repository.list(states=["running", "failed"])] == ["e", "b"]
    assert [record.id for record in repository.list(tenant="t-c")] == ["c"]
    assert repository.list(tenant="t-c", states=["running"]) == []


def test_what_ended_last_comes_first(repository: WorkloadRepository, epoch: int) -> None:
    ended = [replace(RECORD, id=f"w{s}", state="succeeded", ended_at=NOW + timedelta(seconds=s)) for s in (2, 9, 5)]
    requeued = replace(RECORD, id="again", ended_at=NOW + timedelta(seconds=7))
    repository.insert([*ended, requeued], [], epoch=epoch)
    assert [record.id for record in repository.finished(limit=2)] == ["w9", "w5"]


def test_a_scheduler_that_was_replaced_changes_nothing(repository: WorkloadRepository, epoch: int) -> None:
    (stored,) = repository.insert([RECORD], [], epoch=epoch)
    second = repository.lead()
    assert second == epoch + 1
    writes = (
        lambda: repository.insert(named("late"), [], epoch=epoch),
        lambda: repository.update([replace(stored, state="failed")], [SUBMITTED], epoch=epoch),
        lambda: repository.put_queues({}, at=NOW, by="ops", epoch=epoch),
    )
    for write in writes:
        with pytest.raises(Conflict, match=f"epoch {epoch}") as refused:
            write()
        assert refused.value.code == "scheduler_superseded"
    assert repository.list() == [stored]
    assert repository.events("w") == []
    assert repository.latest_queues() is None
    repository.update([replace(stored, state="running")], [], epoch=second)


def test_nobody_writes_who_never_led(repository: WorkloadRepository) -> None:
    for epoch in (0, 1):
        with pytest.raises(Conflict, match=f"epoch {epoch}"):
            repository.insert([RECORD], [], epoch=epoch)


def test_a_write_that_fails_halfway_leaves_nothing(repository: WorkloadRepository, epoch: int) -> None:
    (stored,) = repository.insert([RECORD], [], epoch=epoch)
    broken = replace(SUBMITTED, text=None)  # type: ignore[arg-type]
    with pytest.raises(PlatformError):
        repository.insert(named("new"), [SUBMITTED, broken], epoch=epoch)
    with pytest.raises(PlatformError):
        repository.update([replace(stored, state="running")], [SUBMITTED, broken], epoch=epoch)
    assert repository.list() == [stored]
    assert repository.events("w") == []
    (new,) = repository.insert(named("new"), [], epoch=epoch)
    assert new.sequence == stored.sequence + 1


@pytest.fixture
def rivals(store: Engine, store_url: str) -> Iterator[list[WorkloadRepository]]:
    engines = [open_store(store_url) for _ in range(4)]
    yield [WorkloadRepository(engine) for engine in engines]
    for engine in engines:
        engine.dispose()


def test_of_several_that_lead_at_once_the_last_alone_writes(rivals: list[WorkloadRepository]) -> None:
    start = Barrier(len(rivals))

    def lead_and_write(number: int) -> tuple[int, list[int]]:
        start.wait()
        epoch, written = rivals[number].lead(), []
        try:
            for turn in range(20):
                (record,) = rivals[number].insert(named(f"{number}-{turn}"), [], epoch=epoch)
                written.append(record.sequence)
        except Conflict as refused:
            if refused.code != "scheduler_superseded":
                raise
        return epoch, written

    with ThreadPoolExecutor(len(rivals)) as pool:
        done = list(pool.map(lead_and_write, range(len(rivals))))
    assert sorted(epoch for epoch, _ in done) == [1, 2, 3, 4]
    by_epoch = [written for _, written in sorted(done)]
    assert len(by_epoch[-1]) == 20
    in_turn = [sequence for written in by_epoch for sequence in written]
    assert in_turn == list(range(1, len(in_turn) + 1))
    assert len(rivals[0].list()) == len(in_turn)


def test_a_change_by_two_at_once_is_made_by_one(rivals: list[WorkloadRepository]) -> None:
    epoch = rivals[0].lead()
    (stored,) = rivals[0].insert([RECORD], [], epoch=epoch)
    start = Barrier(len(rivals))

    def change(number: int) -> bool:
        start.wait()
        try:
            rivals[number].update([replace(stored, reason=str(number))], [SUBMITTED], epoch=epoch)
        except Conflict as refused:
            if refused.code != "workload_changed":
                raise
            return False
        return True

    with ThreadPoolExecutor(len(rivals)) as pool:
        done = list(pool.map(change, range(len(rivals))))
    assert done.count(True) == 1
    assert rivals[0].get("w").reason == str(done.index(True))
    assert len(rivals[0].events("w")) == 1


def test_more_workloads_than_a_statement_has_parameters(repository: WorkloadRepository, epoch: int) -> None:
    records = named(*map(str, range(10_001)))
    events = [replace(SUBMITTED, workload_id=record.id) for record in records]
    stored = repository.insert(records, events, epoch=epoch)
    assert repository.active() == list(stored)
    changed = repository.update([replace(record, state="running") for record in stored], [], epoch=epoch)
    assert repository.get("10000") == changed[-1]


def test_history_goes_when_it_is_old_and_nothing_that_is_unfinished(repository: WorkloadRepository, epoch: int) -> None:
    def ended(workload_id: str, hour: int, **fields: Any) -> WorkloadRecord:
        return replace(RECORD, id=workload_id, state="failed", ended_at=NOW + timedelta(hours=hour), **fields)

    whole = [ended(f"whole-{index}", 1, parent_id="whole", array_index=index) for index in range(2)]
    part = [ended("part-0", 1, parent_id="part"), replace(RECORD, id="part-1", parent_id="part")]
    again = replace(RECORD, id="again", ended_at=NOW)
    records = [ended("old", 0), ended("older", -1), *whole, *part, again, ended("late", 8), ended("latest", 9)]
    repository.insert(records, [replace(SUBMITTED, workload_id=each.id) for each in records], epoch=epoch)
    before = NOW + timedelta(hours=5)

    def purge(most: int, keep: int = 1) -> int:
        return repository.purge(before=before, keep=keep, most=most, epoch=epoch)

    def left() -> set[str]:
        return {record.id for record in repository.list()}

    assert purge(10, keep=9) == 0
    assert purge(1) == 1
    assert left() == {record.id for record in records} - {"older"}
    assert purge(10) == 3
    assert left() == {"part-0", "part-1", "again", "late", "latest"}
    assert [len(repository.events(name)) for name in ("old", "whole-0", "part-0", "again")] == [0, 0, 1, 1]
    assert purge(10) == 0
    with pytest.raises(Conflict):
        repository.purge(before=before, keep=1, most=1, epoch=epoch - 1)


def test_at_least_so_many_ended_workloads_stay_however_old(repository: WorkloadRepository, epoch: int) -> None:
    hours = {"first": 1, "second": 2, "third": 3, "with-it": 3}
    ended = [
        replace(RECORD, id=name, state="succeeded", ended_at=NOW + timedelta(hours=hour))
        for name, hour in hours.items()
    ]
    repository.insert(ended, [], epoch=epoch)
    assert repository.purge(before=NOW + timedelta(days=9), keep=3, most=10, epoch=epoch) == 1
    assert [record.id for record in repository.active()] == []
    assert {record.id for record in repository.finished(limit=9)} == {"second", "third", "with-it"}


def test_queues_that_were_replaced_go_and_those_in_force_stay(repository: WorkloadRepository, epoch: int) -> None:
    for hour in range(3):
        repository.put_queues({"queues": [hour]}, at=NOW + timedelta(hours=hour), by="ann", epoch=epoch)
    repository.purge(before=NOW + timedelta(hours=9), keep=1, most=1, epoch=epoch)
    in_force = repository.latest_queues()
    assert in_force is not None
    assert in_force.document == {"queues": [2]}
    assert repository.put_queues({}, at=NOW, by="ann", epoch=epoch).number == 4


def test_usage_of_queues_is_that_of_the_last_write_that_said_so(repository: WorkloadRepository, epoch: int) -> None:
    assert repository.queue_usage() is None
    usage = QueueUsage(average_share={"research": 0.1, "prod": 1 / 3}, at=NOW)
    repository.update([], [], epoch=epoch, usage=usage)
    repository.update([], [SUBMITTED], epoch=epoch)
    assert repository.queue_usage() == usage
    with pytest.raises(Conflict):
        repository.update([], [], epoch=epoch + 1, usage=replace(usage, average_share={}))
    assert repository.queue_usage() == usage


def test_queues_are_kept_with_who_applied_them(repository: WorkloadRepository, epoch: int) -> None:
    assert repository.latest_queues() is None
    first = repository.put_queues({"queues": []}, at=NOW, by="ann", epoch=epoch)
    second = repository.put_queues({"queues": [{"name": "a"}]}, at=NOW + timedelta(hours=1), by="bob", epoch=epoch)
    assert (first.number, second.number) == (1, 2)
    assert repository.latest_queues() == second


def test_a_store_that_is_out_is_said_to_be(store: Engine, repository: WorkloadRepository, epoch: int) -> None:
    with store.begin() as connection:
        connection.execute(text("DROP TABLE workload_events"))
    with pytest.raises(PlatformError, match="workload_events"):
        repository.insert([RECORD], [SUBMITTED], epoch=epoch)
    assert repository.list() == []
