"""Files and batches through OpenAI's own SDK, over a real store and models that answer as told."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from openai.types import Batch, FileObject
from sqlalchemy import text

from mlaas.store.batches import BatchStatus
from mlaas.store.engine import transaction
from tests.unit.router.batches.platform import ENDPOINT, Platform, requests
from tests.waiting import wait_until


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(tmp_path)
    yield platform
    platform.engine.dispose()


async def submit(client: openai.AsyncOpenAI, content: bytes, **fields: Any) -> Batch:
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    fields = {"endpoint": ENDPOINT, "completion_window": "24h", **fields}
    return await client.batches.create(input_file_id=file.id, **fields)


async def read(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    content = await client.files.content(file_id)
    return [orjson.loads(line) for line in content.text.splitlines()]


async def test_a_batch_is_answered_in_the_order_of_its_input(platform: Platform) -> None:
    async with platform.client() as client:
        names = [f"r{number}" for number in range(20)]
        names[3], names[7] = "down", "odd"
        batch = await submit(client, requests(*names), metadata={"who": "me"})
        assert (batch.status, batch.object, batch.request_counts.total) == ("validating", "batch", 0)
        assert await platform.executor.run_next("w")
        batch = await client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert batch.request_counts.model_dump() == {"total": 20, "completed": 18, "failed": 2}
        assert batch.metadata == {"who": "me"}
        assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at < batch.expires_at
        output, errors = await read(client, batch.output_file_id), await read(client, batch.error_file_id)
        assert [line["custom_id"] for line in output] == [name for name in names if name not in ("down", "odd")]
        assert output[0]["response"] == {"status_code": 200, "request_id": "r", "body": {"echo": "r0"}}
        codes = [(line["custom_id"], line["response"]["status_code"]) for line in errors]
        assert codes == [("down", 500), ("odd", 500)]
        assert platform.models.most_at_once == 4
        assert platform.models.keys == {("key-t", "t")}
        assert not await platform.executor.run_next("w")


async def test_files_go_up_and_down_and_away(platform: Platform) -> None:
    async with platform.client() as client:
        file = await client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
        assert (file.bytes, file.filename, file.status) == (2, "in.jsonl", "processed")
        assert await client.files.retrieve(file.id) == file
        assert (await client.files.content(file.id)).content == b"{}"
        more = [await client.files.create(file=("x", b"1"), purpose="batch") for _ in range(3)]
        listed = [each async for each in client.files.list(limit=2)]
        assert {each.id for each in listed} == {file.id, *(each.id for each in more)}
        assert all(isinstance(each, FileObject) for each in listed)
        assert (await client.files.delete(file.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.content(file.id)


async def test_tenants_do_not_see_each_other_s(platform: Platform) -> None:
    async with platform.client("t") as ours, platform.client("u") as theirs:
        batch = await submit(ours, requests("a"))
        await platform.executor.run_next("w")
        batch = await ours.batches.retrieve(batch.id)
        for forbidden in (
            theirs.batches.retrieve(batch.id),
            theirs.batches.cancel(batch.id),
            theirs.files.retrieve(batch.input_file_id),
            theirs.files.content(batch.output_file_id or ""),
            theirs.files.delete(batch.output_file_id or ""),
            submit_again(theirs, batch.input_file_id),
        ):
            with pytest.raises(openai.NotFoundError):
                await forbidden
        assert (await theirs.batches.list()).data == []
        assert (await theirs.files.list()).data == []
        assert [each.id async for each in ours.batches.list(limit=1)] == [batch.id]


async def submit_again(client: openai.AsyncOpenAI, file_id: str) -> Batch:
    return await client.batches.create(input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h")


async def test_a_bad_input_fails_with_the_lines(platform: Platform) -> None:
    async with platform.client() as client:
        batch = await submit(client, requests("a", "a") + b"\n{")
        await platform.executor.run_next("w")
        batch = await client.batches.retrieve(batch.id)
        assert (batch.status, batch.failed_at is not None) == ("failed", True)
        assert batch.errors is not None
        assert [(each.line, each.code) for each in batch.errors.data] == [
            (2, "duplicate_custom_id"),
            (3, "invalid_json_line"),
        ]
        assert platform.models.asked == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "169h"}, "completion_window"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
    ],
)
async def test_what_a_batch_cannot_be_is_refused_by_name(platform: Platform, fields: dict, param: str) -> None:
    async with platform.client() as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await submit(client, requests("a"), **fields)
        assert refused.value.param == param


async def test_files_of_other_kinds_are_refused_by_name(platform: Platform) -> None:
    async with platform.client() as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.files.create(file=("x", b"1"), purpose="fine-tune")
        assert refused.value.param == "purpose"
        with pytest.raises(openai.BadRequestError) as refused:
            await client.files.create(
                file=("x", b"1"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
            )
        assert str(refused.value.param).startswith("expires_after")
        with pytest.raises(openai.BadRequestError) as refused:
            await client.batches.list(limit=0)
        assert refused.value.param == "limit"


async def test_a_busy_target_is_asked_again_after_the_time_it_asks_for(platform: Platform) -> None:
    async with platform.client() as client:
        batch = await submit(client, requests("busy-2", "busy-9"))
        await platform.executor.run_next("w")
        batch = await client.batches.retrieve(batch.id)
        assert [line["custom_id"] for line in await read(client, batch.output_file_id)] == ["busy-2"]
        [error] = await read(client, batch.error_file_id)
        assert error["response"]["status_code"] == 429
        assert platform.models.asked.count("busy-9") == 6
        assert set(platform.waits_s) == {3}


async def test_a_spent_budget_is_not_waited_for(platform: Platform) -> None:
    async with platform.client() as client:
        batch = await submit(client, requests("broke"))
        await platform.executor.run_next("w")
        [error] = await read(client, (await client.batches.retrieve(batch.id)).error_file_id)
        assert (error["response"]["status_code"], platform.models.asked, platform.waits_s) == (429, ["broke"], [])


async def test_a_store_that_is_out_leaves_no_content_behind(platform: Platform, tmp_path: Path) -> None:
    async with platform.client() as client:
        with transaction(platform.engine) as connection:
            connection.execute(text("ALTER TABLE files RENAME TO elsewhere"))
        with pytest.raises(openai.InternalServerError):
            await client.files.create(file=("x", b"1"), purpose="batch")
        assert list((tmp_path / "files").iterdir()) == []


async def running(platform: Platform, num_asked: int) -> asyncio.Task[bool]:
    """Start work whose requests hang, and return once so many have been asked."""
    platform.models.free.clear()
    task = asyncio.create_task(platform.executor.run_next("w"))
    asked = platform.models.asked
    await asyncio.to_thread(wait_until, lambda: len(asked) >= num_asked, what="requests under way", timeout_s=20)
    return task


async def test_a_cancelled_batch_keeps_what_was_answered(platform: Platform) -> None:
    async with platform.client() as client:
        batch = await submit(client, requests(*"abcdef"))
        task = await running(platform, 4)
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        platform.models.free.set()
        await task
        batch = await client.batches.retrieve(batch.id)
        assert (batch.status, batch.cancelled_at is not None) == ("cancelled", True)
        output, errors = await read(client, batch.output_file_id), await read(client, batch.error_file_id)
        assert sorted(line["custom_id"] for line in [*output, *errors]) == list("abcdef")
        assert output
        assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
        with pytest.raises(openai.ConflictError):
            await client.batches.cancel(batch.id)


async def test_a_batch_expires_with_its_window(platform: Platform) -> None:
    async with platform.client() as client:
        batch = await submit(client, requests(*"abc"), completion_window="1h")
        platform.offset = timedelta(hours=2)
        await platform.executor.run_next("w")
        batch = await client.batches.retrieve(batch.id)
        assert (batch.status, batch.expired_at is not None) == ("expired", True)
        assert batch.request_counts.model_dump() == {"total": 3, "completed": 0, "failed": 3}
        errors = await read(client, batch.error_file_id)
        assert [(line["custom_id"], line["error"]["code"]) for line in errors] == [(n, "batch_expired") for n in "abc"]
        assert batch.output_file_id is None


async def test_who_has_lost_the_lease_leaves_the_batch_to_the_other(platform: Platform) -> None:
    async with platform.client() as client:
        batch = await submit(client, requests(*"abcdef"))
        slow = await running(platform, 4)
        platform.offset = timedelta(minutes=2)
        platform.models.free.set()
        other = platform.new_executor()
        first, second = await asyncio.gather(slow, other.run_next("x"))
        assert (first, second) == (True, True)
        batch = await client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        output = await read(client, batch.output_file_id)
        assert [line["custom_id"] for line in output] == list("abcdef")


async def test_a_worker_that_is_stopped_gives_the_batch_back(platform: Platform) -> None:
    async with platform.client() as client:
        batch = await submit(client, requests("a"))
        task = await running(platform, 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert platform.models.num_at_once == 0
        stored = platform.batches.get(batch.id, tenant="t")
        assert (stored.status, stored.lease_owner) == (BatchStatus.IN_PROGRESS, None)


async def test_workers_wait_for_work_and_wake(platform: Platform) -> None:
    task = asyncio.create_task(platform.executor.run())
    async with platform.client() as client:
        batch = await submit(client, requests("a"))
        await asyncio.to_thread(wait_until, lambda: is_completed(platform, batch.id), what="the batch", timeout_s=20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def is_completed(platform: Platform, batch_id: str) -> bool:
    return platform.batches.get(batch_id, tenant="t").status is BatchStatus.COMPLETED


async def test_a_missing_input_fails_the_batch(platform: Platform) -> None:
    async with platform.client() as client:
        batch = await submit(client, requests("a"))
        platform.folder.remove(batch.input_file_id)
        await platform.executor.run_next("w")
        batch = await client.batches.retrieve(batch.id)
        assert batch.status == "failed"
        assert batch.errors.data[0].code == "file_content_missing"


KILLED = """
    import asyncio, sys
    from pathlib import Path
    import orjson
    from mlaas.router.batches.executor import Performed
    from tests.unit.router.batches.platform import Platform

    home = Path(sys.argv[1])

    async def perform(operation, body, *, key_id, tenant):
        user = orjson.loads(body)["user"]
        with (home / "asked").open("a") as log:
            log.write(user + "\\n")
        if int(user) >= 12:
            await asyncio.Event().wait()
        return Performed(status=200, body=b"{}", request_id="r")

    asyncio.run(Platform(home).new_executor(perform).run_next("killed"))
"""


async def test_after_a_kill_only_what_has_no_answer_is_asked_again(platform: Platform, tmp_path: Path) -> None:
    names = [str(number) for number in range(20)]
    async with platform.client() as client:
        batch = await submit(client, requests(*names))
        code = textwrap.dedent(KILLED)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path))

        def num_answered() -> int:
            return len(platform.batches.answered_lines(batch.id))

        try:
            await asyncio.to_thread(wait_until, lambda: num_answered() == 12, what="12 answers", timeout_s=60)
        finally:
            process.kill()
            await process.wait()
        asked = (tmp_path / "asked").read_text().split()
        assert not await platform.executor.run_next("early"), "the lease of the dead worker still holds"
        platform.offset = timedelta(seconds=61)
        assert await platform.executor.run_next("w")
        assert sorted(map(int, platform.models.asked)) == list(range(12, 20))
        assert set(asked) | set(platform.models.asked) == set(names)
        batch = await client.batches.retrieve(batch.id)
        assert batch.request_counts.model_dump() == {"total": 20, "completed": 20, "failed": 0}
        assert [line["custom_id"] for line in await read(client, batch.output_file_id)] == names
