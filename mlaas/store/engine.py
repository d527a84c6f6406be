"""Opens the store, migrates it, and runs transactions on it: SQLite embedded, PostgreSQL in production."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from mlaas.errors import ConfigError, PlatformError

BUSY_TIMEOUT_S = 10
"""How long a SQLite writer waits for another one before it fails."""
CONNECT_TIMEOUT_S = 5
"""How long a connection to PostgreSQL may take."""
MIGRATION_LOCK = 0x6D6C616173
"""PostgreSQL advisory lock that a migrating process holds: `mlaas` in ASCII."""

_WRITE_AT_ONCE = "mlaas_write_at_once"
_SUPPORTED = "give sqlite:////absolute/path or postgresql://user:password@host:port/database"


def open_store(url: str) -> Engine:
    """Return an engine for the store; it connects at the first transaction.

    A SQLite file that does not exist is created with mode 0600, and its folder, when missing, with mode 0700.

    Args:
        url: `sqlite:////absolute/path` or `postgresql://user:password@host:port/database`.

    Raises:
        ConfigError: the URL cannot be read, or names a database that is not supported.
        PlatformError: the SQLite file cannot be created.
    """
    parsed = _parse_url(url)
    if parsed.drivername == "sqlite":
        _create_private_file(Path(parsed.database or ""))
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S}, hide_parameters=True)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
        pool_pre_ping=True,
        hide_parameters=True,
    )


def migrate(url: str) -> None:
    """Bring the store to this version's schema. Safe to repeat, and for several processes at once.

    Raises:
        ConfigError: the URL cannot be read, or names a database that is not supported.
        PlatformError: the database cannot be reached, or a newer version of mlaas has migrated it.
    """
    # Only this function needs Alembic, whose import takes as long as SQLAlchemy's.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    engine = open_store(url)
    config = Config()
    config.set_main_option("script_location", "mlaas.store:migrations")
    try:
        with transaction(engine.execution_options(**{_WRITE_AT_ONCE: True})) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        message = f"store {redact(engine.url)}: {error}; a newer mlaas has migrated it: install that version"
        raise PlatformError("store_too_new", message) from error
    finally:
        engine.dispose()


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run the block in one transaction, committed at its end and rolled back on any error.

    Raises:
        PlatformError: the database cannot be reached, has no schema, or stays locked.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (DBAPIError, PoolTimeoutError) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error).strip().partition("\n")[0]
        message = (
            f"store {redact(engine.url)}: {reason}; check that the database is up, and that `mlaas up` prepared it"
        )
        raise PlatformError("store_unavailable", message) from error


def upsert(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert the row, or replace the one with the same primary key."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert = dialect.insert(table).values(row)
    connection.execute(insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=dict(row)))


def redact(url: URL) -> str:
    """Return the URL without its password and its query, where one may hide as well."""
    return url.set(query={}).render_as_string(hide_password=True)


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        shown = re.sub(r"//.*@", "//***@", url).partition("?")[0]
        message = f"database_url={shown!r} is not a URL; {_SUPPORTED}"
        raise ConfigError("bad_database_url", message) from error
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return parsed
    if parsed.drivername != "sqlite" or parsed.query or not Path(parsed.database or "").is_absolute():
        raise ConfigError("bad_database_url", f"database_url={redact(parsed)!r} is not supported; {_SUPPORTED}")
    return parsed


def _create_private_file(path: Path) -> None:
    """Make a file that does not exist. One that does is not even opened.

    Closing any descriptor of a file drops all POSIX locks that the process has on it, those of its open SQLite
    connections among them. The next process that closes the store then believes that it is the last, removes the
    write-ahead log, and what this one goes on writing is lost. Source: "How To Corrupt An SQLite Database File", 2.2.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        message = (
            f"store file {path} cannot be written: {error.strerror}; set MLAAS_HOME or MLAAS_DATABASE_URL elsewhere"
        )
        raise PlatformError("store_not_writable", message) from error


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transactions leave DDL and reads outside; `_begin_sqlite` starts them instead.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    write_at_once = connection.get_execution_options().get(_WRITE_AT_ONCE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write_at_once else "BEGIN")
