import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlaas.errors import ConfigError, PlatformError
from mlaas.store.deployments import Deployment, DeploymentRepository
from mlaas.store.engine import migrate, open_store


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///relative.db",
        "sqlite:////tmp/x.db?mode=ro",
        "mysql://ada:hunter2@db/mlaas",
        "postgres://ada:hunter2@db/mlaas",
        "postgresql+asyncpg://ada:hunter2@db/mlaas?password=hunter2",
        "postgresql://ada:hunter2@db:port/mlaas",
    ],
)
def test_a_url_that_is_not_supported_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"database_url=.*sqlite:////absolute/path") as refused:
        open_store(url)
    assert refused.value.code == "bad_database_url"
    assert "hunter2" not in refused.value.message


def test_an_unreachable_database_is_named_without_its_password() -> None:
    with pytest.raises(PlatformError, match=r"postgresql\+psycopg://ada:\*\*\*@127.0.0.1:1/mlaas") as refused:
        migrate("postgresql://ada:hunter2@127.0.0.1:1/mlaas?application_name=hunter2")
    assert refused.value.code == "store_unavailable"
    assert "hunter2" not in refused.value.message


def test_a_sqlite_file_that_cannot_be_created_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlatformError, match=r"file/mlaas\.db.*MLAAS_HOME"):
        open_store(f"sqlite:///{tmp_path}/file/mlaas.db")


def test_opening_a_store_again_costs_nothing_that_is_written_once_another_process_has_left(tmp_path: Path) -> None:
    path = tmp_path / "mlaas.db"
    url = f"sqlite:///{path}"
    migrate(url)
    repository = DeploymentRepository(open_store(url))
    assert repository.list() == []
    open_store(url)

    def num_seen_by_another_process() -> str:
        script = f"import sqlite3; print(*sqlite3.connect({str(path)!r}).execute('SELECT count(*) FROM deployments'))"
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert num_seen_by_another_process() == "(0,)\n"
    repository.put(Deployment(name="tiny", model="tiny", version=1, replicas=1, created_at=datetime.now(UTC)))
    assert num_seen_by_another_process() == "(1,)\n"


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mlaas.db"
    path.write_text("these are not the bytes of a database" * 100)
    with pytest.raises(PlatformError, match=r"mlaas\.db.*not a database"):
        migrate(f"sqlite:///{path}")


def test_importing_the_repositories_loads_no_heavy_library() -> None:
    script = (
        "import sys, mlaas.store.keys, mlaas.store.deployments, mlaas.store.jobs, mlaas.auth.keyring\n"
        "print(sorted({'ray', 'torch', 'alembic', 'psycopg', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
