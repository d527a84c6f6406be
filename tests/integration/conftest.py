"""A whole instance, started by the command line as a user would, shared by the tests of one session."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlaas.platform.processes import free_port, owned
from mlaas.settings import Settings, load_settings

MLAAS = Path(sys.executable).parent / "mlaas"


class Instance:
    """One instance with a home, ports and a Ray token of its own."""

    def __init__(self, folder: Path, **variables: str) -> None:
        ports = {f"MLAAS_{name}_PORT": str(free_port()) for name in ("GATEWAY", "DASHBOARD", "GCS", "MLFLOW")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLAAS_", "RAY_"))}
        token = {"RAY_AUTH_TOKEN_PATH": str(folder / "ray-token"), "RAY_AUTH_MODE": "token"}
        self.env = {**kept, "MLAAS_HOME": str(folder / "home"), **ports, **token, **variables}
        self.settings: Settings = load_settings(self.env)

    def run(self, *arguments: str, timeout_s: float = 600, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `mlaas` to its end. With `check`, a failure shows what it printed."""
        done = subprocess.run(
            [MLAAS, *arguments], env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check:
            assert done.returncode == 0, f"mlaas {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done

    def close(self) -> None:
        """Stop the instance, and check that nothing of it is left."""
        self.run("down")
        assert owned(self.settings.home) == []


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance that is up."""
    instance = Instance(tmp_path_factory.mktemp("instance"))
    try:
        instance.first_up = instance.run("up")
        yield instance
    finally:
        instance.close()
