"""The process that carries usage to the store beside a busy replica."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mlaas.router.money.journal import Journal
from mlaas.router.money.shipping import ShippingProcess
from mlaas.router.record import RequestRecord
from mlaas.store.engine import migrate, open_store
from mlaas.store.usage import UsageRepository
from tests.waiting import wait_until


def record(number: int) -> RequestRecord:
    return RequestRecord(
        id=f"{number:032x}",
        request_id=f"r{number}",
        at_s=1_800_000_000.0,
        operation="chat/completions",
        key_id="key-1",
        tenant="t",
        model="m",
        status=200,
    )


@pytest.fixture
def usage(tmp_path, monkeypatch) -> UsageRepository:
    url = f"sqlite:///{tmp_path / 'mlaas.db'}"
    migrate(url)
    monkeypatch.setenv("MLAAS_DATABASE_URL", url)
    return UsageRepository(open_store(url))


async def test_what_is_recorded_is_carried_also_after_the_carrier_was_killed_and_to_the_end(tmp_path, usage):
    journal = Journal(tmp_path / "journal")
    shipping = ShippingProcess(journal.folder)
    running = asyncio.create_task(shipping.run())

    async def carried(number: int) -> None:
        await asyncio.to_thread(wait_until, lambda: usage.get(f"r{number}"), what=f"row {number}", timeout_s=30)

    journal.record(record(1))
    await carried(1)
    process = shipping._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    journal.record(record(2))
    await carried(2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    journal.record(record(3))
    journal.close()
    last = shipping._process
    assert last is not None
    await shipping.finish()
    assert last.returncode == 0
    assert [len(usage.get(f"r{number}")) for number in (1, 2, 3)] == [1, 1, 1]
