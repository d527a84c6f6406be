"""The journal: nothing that was recorded is lost, and the ledger gets each request once."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from mlaas.errors import PlatformError
from mlaas.providers.base import Usage
from mlaas.router.money.journal import Journal
from mlaas.router.money.journal_shipping import Shipper, read_entry
from mlaas.router.record import RequestRecord
from mlaas.store.engine import open_store, transaction
from mlaas.store.tables import metadata, usage
from mlaas.store.usage import UsageEntry, UsageRepository

AT = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)


def record(number: int = 0, **fields: object) -> RequestRecord:
    given = {"operation": "chat/completions", "key_id": "k", "tenant": "acme", "model": "fast", "status": 200}
    return RequestRecord(id=f"id{number}", request_id=f"r{number}", at_s=AT.timestamp(), **{**given, **fields})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Engine]:
    engine = open_store(f"sqlite:///{tmp_path}/mlaas.db")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "journal"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    journal = Journal(folder)
    yield journal
    journal.close()


def ids(store: Engine) -> set[str]:
    with transaction(store) as connection:
        return set(connection.execute(select(usage.c.id)).scalars())


def everything(count: int) -> set[str]:
    return {f"id{number}" for number in range(count)}


def lines(folder: Path) -> list[dict[str, object]]:
    files = sorted(folder.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_record_is_on_disk_when_record_returns_and_only_its_owner_reads_it(journal: Journal, folder: Path) -> None:
    journal.record(record(1, cost_usd=Decimal("0.1"), usage=Usage(output_tokens=3)))
    [line] = lines(folder)
    assert (line["id"], line["cost_usd"], line["usage"]["output_tokens"]) == ("id1", "0.1", 3)
    assert journal.path is not None
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_full_file_is_followed_by_another_and_both_are_shipped(folder: Path, store: Engine) -> None:
    journal = Journal(folder, max_file_bytes=2000)
    shipper = Shipper(journal, UsageRepository(store))
    for number in range(40):
        journal.record(record(number))
    assert len(list(folder.glob("requests-*.jsonl"))) > 5
    shipper.ship()
    assert ids(store) == everything(40)
    assert list(folder.glob("requests-*.jsonl")) == [journal.path]
    assert len(list(folder.glob("shipped-*.jsonl"))) == 4
    assert shipper.pending_bytes() == 0
    journal.close()


def test_what_is_written_later_is_shipped_later(journal: Journal, store: Engine) -> None:
    shipper = Shipper(journal, UsageRepository(store))
    shipper.ship()
    for number in range(3):
        journal.record(record(number))
        assert shipper.pending_bytes() > 0
        shipper.ship()
        assert ids(store) == everything(number + 1)
        assert shipper.pending_bytes() == 0


def test_an_outage_of_the_store_delays_and_loses_nothing(journal: Journal, tmp_path: Path) -> None:
    engine = open_store(f"sqlite:///{tmp_path}/late.db")
    shipper = Shipper(journal, UsageRepository(engine))
    for number in range(1500):
        journal.record(record(number))
    for _ in range(2):
        with pytest.raises(PlatformError):
            shipper.ship()
    metadata.create_all(engine)
    shipper.ship()
    assert len(ids(engine)) == 1500
    engine.dispose()


def test_shipping_twice_keeps_one_row_each(journal: Journal, folder: Path, store: Engine) -> None:
    shipper = Shipper(journal, UsageRepository(store))
    for number in range(5):
        journal.record(record(number))
    shipper.ship()
    for offset in folder.glob("*.offset"):
        offset.unlink()
    shipper.ship()
    [total] = UsageRepository(store).summarize("key", since=AT, until=datetime.now(UTC).replace(year=2099))
    assert total.num_requests == 5


def test_a_file_that_somebody_still_writes_is_left_to_its_writer(journal: Journal, folder: Path, store: Engine) -> None:
    other = Journal(folder)
    other.record(record(0))
    shipper = Shipper(journal, UsageRepository(store))
    shipper.ship()
    assert ids(store) == set()
    other.close()
    shipper.ship()
    assert ids(store) == {"id0"}


WRITER = """
import sys
from mlaas.router.money.journal import Journal
from mlaas.router.record import RequestRecord
from pathlib import Path
journal = Journal(Path(sys.argv[1]))
for number in range(10_000_000):
    journal.record(RequestRecord(id=f"id{number}", request_id="r", at_s=1.0, key_id="k", tenant="t", operation="o"))
    if number % 100 == 0:
        print(number, flush=True)
"""


def test_kill_9_loses_no_record_and_another_process_ships_them(journal: Journal, folder: Path, store: Engine) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 500:
                os.kill(writer.pid, signal.SIGKILL)
                break
        num_said = 1 + max([int(line), *map(int, writer.stdout)])
    Shipper(journal, UsageRepository(store)).ship()
    stored = ids(store)
    assert len(stored) >= num_said
    assert stored == everything(len(stored))
    assert list(folder.glob("requests-*.jsonl")) == []


FULL_DISK = """
import logging, resource, sys
from mlaas.router.money.journal import Journal
from mlaas.router.record import RequestRecord
from pathlib import Path
logging.basicConfig(stream=sys.stdout, format="%(levelname)s")
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
journal = Journal(Path(sys.argv[1]))
for number in range(40):
    journal.record(RequestRecord(id=f"id{number}", request_id="r", at_s=1.0, key_id="k", tenant="t", operation="o"))
print(journal.num_lost)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.record(RequestRecord(id="id40", request_id="r", at_s=1.0, key_id="k", tenant="t", operation="o"))
print(journal.num_lost)
"""


def test_a_full_disk_is_counted_said_once_and_tears_no_line(journal: Journal, folder: Path, store: Engine) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(folder)], capture_output=True, text=True, check=True)
    said, num_lost, back, num_lost_after = done.stdout.split()
    assert (said, back) == ("ERROR", "WARNING")
    assert 0 < int(num_lost) == int(num_lost_after) < 40
    shipper = Shipper(journal, UsageRepository(store))
    shipper.ship()
    assert ids(store) == everything(40 - int(num_lost)) | {"id40"}
    assert shipper.num_unreadable == 0


def test_a_folder_that_cannot_be_written_hinders_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "journal")
    with caplog.at_level(logging.WARNING):
        journal.record(record(0))
        journal.record(record(1))
    assert journal.num_lost == 2
    assert len(caplog.records) == 1


def test_a_torn_or_foreign_line_is_left_out_and_the_rest_is_shipped(
    journal: Journal, folder: Path, store: Engine
) -> None:
    other = Journal(folder)
    other.record(record(0))
    assert other.path is not None
    with other.path.open("ab") as file:
        file.write(b"\0\0\0\n[]\n{}\n" + orjson.dumps(record(1), default=str) + b'\n{"id": "torn')
    other.close()
    shipper = Shipper(journal, UsageRepository(store))
    shipper.ship()
    assert ids(store) == {"id0", "id1"}
    assert shipper.num_unreadable == 4


class _SeenTorn(io.FileIO):
    """A file whose reader comes upon the middle of a line that is just being written."""

    cut_bytes = 0

    def readinto(self, buffer: Any) -> int | None:
        if self.tell() < self.cut_bytes:
            return super().readinto(memoryview(buffer)[: self.cut_bytes - self.tell()])
        if self.tell() == self.cut_bytes:
            type(self).cut_bytes = 0
            return 0
        return super().readinto(buffer)


def test_a_line_that_is_just_being_written_is_left_for_later_and_not_lost(
    journal: Journal, store: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        journal.record(record(number))
    assert journal.path is not None
    first, second, _ = journal.path.read_bytes().splitlines(keepends=True)
    monkeypatch.setattr(_SeenTorn, "cut_bytes", len(first) + len(second) // 2)
    usual = Path.open

    def open_(path: Path, mode: str = "r", **options: Any) -> Any:
        return io.BufferedReader(_SeenTorn(path)) if path == journal.path else usual(path, mode, **options)

    monkeypatch.setattr(Path, "open", open_)
    shipper = Shipper(journal, UsageRepository(store))
    shipper.ship()
    shipper.ship()
    assert ids(store) == everything(3)
    assert shipper.num_unreadable == 0


def test_two_that_share_a_folder_ship_at_once_what_others_left(folder: Path, store: Engine) -> None:
    left = Journal(folder, max_file_bytes=1000)
    for number in range(60):
        left.record(record(number))
    left.close()
    shippers = [Shipper(Journal(folder), UsageRepository(store)) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(shipper.ship) for shipper in shippers]:
            done.result(30)
    shippers[0].ship()
    assert ids(store) == everything(60)
    assert [shipper.num_unreadable for shipper in shippers] == [0, 0]
    assert shippers[0].pending_bytes() == 0


def test_a_value_that_is_no_json_does_not_take_its_record_with_it(journal: Journal, folder: Path) -> None:
    journal.record(record(decision=frozenset({"a prompt"})))
    assert [line["decision"] for line in lines(folder)] == ["<frozenset>"]
    assert journal.num_lost == 0


def test_only_requests_of_a_key_to_a_model_are_in_the_ledger() -> None:
    assert read_entry(orjson.dumps(record())) is not None
    assert read_entry(orjson.dumps(record(key_id=None))) is None
    assert read_entry(orjson.dumps(record(operation=""))) is None


def test_what_a_database_would_refuse_is_made_fit() -> None:
    entry = read_entry(orjson.dumps(record(model="a\0b", usage=Usage(input_tokens=2**63, output_tokens=-1))))
    assert entry is not None
    assert (entry.model, entry.input_tokens, entry.output_tokens) == ("ab", 2**63 - 1, 0)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
COUNT = st.integers(0, 2**40)


@given(
    request_id=TEXT,
    model=TEXT,
    reason=TEXT,
    usage=st.builds(
        Usage, input_tokens=COUNT, cache_read_tokens=COUNT, output_tokens=COUNT, is_estimated=st.booleans()
    ),
    pico_usd=st.none() | st.integers(0, 10**18),
    ttft_ms=st.none() | st.floats(0, 1e6),
)
def test_any_record_arrives_as_it_was(
    request_id: str, model: str, reason: str, usage: Usage, pico_usd: int | None, ttft_ms: float | None
) -> None:
    cost = None if pico_usd is None else Decimal(pico_usd).scaleb(-12)
    sent = record(
        model=model,
        reason=reason,
        usage=usage,
        cost_usd=cost,
        ttft_ms=ttft_ms,
        target="house/a/b",
        error="x",
        num_attempts=2,
        queue_ms=1.5,
        duration_ms=2.5,
        cache="exact",
        is_stream=True,
    )
    sent.request_id = request_id
    assert read_entry(orjson.dumps(sent, default=str)) == UsageEntry(
        id="id0",
        request_id=request_id,
        at=AT,
        key_id="k",
        tenant="acme",
        model=model,
        provider="house",
        target="house/a/b",
        operation="chat/completions",
        status=200,
        error="x",
        is_stream=True,
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        output_tokens=usage.output_tokens,
        is_estimated=usage.is_estimated,
        cost_pico_usd=pico_usd,
        duration_ms=2.5,
        ttft_ms=ttft_ms,
        queue_ms=1.5,
        num_attempts=2,
        cache="exact",
        reason=reason or None,
    )
