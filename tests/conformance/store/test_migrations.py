import multiprocessing
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from mlaas.errors import PlatformError
from mlaas.store.engine import migrate, open_store, transaction
from mlaas.store.jobs import JobRepository
from mlaas.store.tables import metadata


def test_migrations_create_exactly_the_declared_tables(store: Engine) -> None:
    with store.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert set(inspect(store).get_table_names()) == {*metadata.tables, "alembic_version"}


def test_migrating_twice_changes_nothing(store_url: str, store: Engine) -> None:
    with transaction(store) as connection:
        connection.execute(text("INSERT INTO jobs VALUES ('j', 'true', 'PENDING', '', '2026-01-01 00:00:00', NULL)"))
    migrate(store_url)
    assert [job.id for job in JobRepository(store).list()] == ["j"]


def test_processes_that_migrate_at_once_all_succeed(store_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=migrate, args=(store_url,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    engine = open_store(store_url)
    assert list(JobRepository(engine).list()) == []
    engine.dispose()


def test_a_store_of_a_newer_version_is_refused(store_url: str, store: Engine) -> None:
    with transaction(store) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(PlatformError, match=r"9999.*newer mlaas") as refused:
        migrate(store_url)
    assert refused.value.code == "store_too_new"


def test_a_store_without_schema_names_the_command_that_prepares_it(store_url: str) -> None:
    engine = open_store(store_url)
    with pytest.raises(PlatformError, match=r"jobs.*mlaas up"):
        JobRepository(engine).list()
    engine.dispose()


def test_a_failed_block_leaves_nothing_behind(store: Engine) -> None:
    def fail_halfway() -> None:
        with transaction(store) as connection:
            connection.execute(text("DELETE FROM alembic_version"))
            raise PlatformError("halfway", "halfway")

    with pytest.raises(PlatformError, match="halfway"):
        fail_halfway()
    with store.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1


def test_the_sqlite_store_is_private_and_waits_for_writers(tmp_path: Path) -> None:
    path = tmp_path / "home" / "mlaas.db"
    migrate(f"sqlite:///{path}")
    engine = open_store(f"sqlite:///{path}")
    with engine.connect() as connection:
        pragmas = [
            connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "busy_timeout", "foreign_keys")
        ]
    engine.dispose()
    assert pragmas == ["wal", 10_000, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
