"""The two engines of the store, both real: a SQLite file, and a PostgreSQL server that lives for the session."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from mlaas.store.engine import migrate, open_store


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A server that listens on a unix socket in its own folder, and on nothing else."""

    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql://mlaas@/{database}?host={self.folder}"

    def create_database(self) -> str:
        """Return the URL of a new empty database."""
        database = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(host=str(self.folder), user="mlaas", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {database}")
        return self.url(database)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Start PostgreSQL: the one on PATH, else the one that pgserver carries. Stop and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mlaas-pg-"))
    try:
        server = _start_postgres(folder)
        try:
            yield server
        finally:
            _run(folder, "pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/home/mlaas.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database()


@pytest.fixture
def store(store_url: str) -> Iterator[Engine]:
    """Return a migrated store."""
    migrate(store_url)
    engine = open_store(store_url)
    yield engine
    engine.dispose()


def _start_postgres(folder: Path) -> PostgresServer:
    if shutil.which("pg_ctl") is None:
        import pgserver

        # A copy, because the user that the server runs as may not be able to reach the environment's folder.
        package = Path(pgserver.__file__).parent
        shutil.copytree(package, folder / "pgserver", symlinks=True)
        shutil.copytree(package.with_name("pgserver.libs"), folder / "pgserver.libs")
    if (user := _unprivileged_user()) is not None:
        shutil.chown(folder, user)
    _run(folder, "initdb", "-D", "data", "-U", "mlaas", "-A", "trust", "-E", "UTF8", "--no-sync")
    # Far from UTC, so that a time zone that leaks through is seen.
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c timezone=Asia/Kolkata"
    _run(folder, "pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")
    return PostgresServer(folder=folder)


def _run(folder: Path, program: str, *arguments: str) -> None:
    bundled = folder / "pgserver" / "pginstall" / "bin" / program
    command = [str(bundled) if bundled.exists() else program, *arguments]
    user = _unprivileged_user()
    account = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    # Output goes to a file: the server would inherit a pipe and hold it open.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **account)
        output.seek(0)
        assert done.returncode == 0, f"{command} exited with {done.returncode}: {output.read()}"


def _unprivileged_user() -> str | None:
    """Return who the server runs as instead of root, as which it refuses to run."""
    if os.getuid() != 0:
        return None
    accounts = {account.pw_name for account in pwd.getpwall()}
    return "postgres" if "postgres" in accounts else "nobody"
