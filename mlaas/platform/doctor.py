"""A check of everything an instance stands on; each finding that is not ok says how to mend it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from importlib.metadata import version

import psutil

from mlaas.auth.keyring import KeyRing
from mlaas.bootstrap import CUDA_ONLY_ON_PYPI, preflight
from mlaas.errors import MlaasError
from mlaas.platform.instance import joined_address, probe
from mlaas.platform.parts import Probe
from mlaas.router.config_file import load_config
from mlaas.settings import Settings, ray_token_path, router_config_path
from mlaas.store.engine import open_store
from mlaas.store.keys import KeyRepository


def examine(settings: Settings) -> list[Probe]:
    """Check the machine, the packages, the instance's files and every part of it."""
    checks = [_machine(settings), _packages(), _token()]
    if joined_address(settings) is None:
        checks += [_store(settings), _router_config(settings)]
    return checks + probe(settings)


def _machine(settings: Settings) -> Probe:
    findings = preflight(
        free_disk_bytes=shutil.disk_usage(settings.home if settings.home.exists() else settings.home.parent).free,
        memory_bytes=psutil.virtual_memory().available,
        python=sys.version_info[:2],
        has_compiler=shutil.which("g++") is not None,
    )
    text = "; ".join(finding.message for finding in findings)
    if any(finding.fatal for finding in findings):
        return Probe(part="machine", ok=False, detail=text, fix="see the remedy beside each")
    cores, memory = os.cpu_count(), psutil.virtual_memory().total / 1e9
    return Probe(
        part="machine", ok=True, detail=f"{cores} cores, {memory:.0f} GB of memory" + (f"; {text}" if text else "")
    )


def _packages() -> Probe:
    torch = version("torch")
    broken = [name for name in CUDA_ONLY_ON_PYPI if importlib.util.find_spec(name)] if "+cpu" in torch else []
    if broken:
        fix = f"run `pip uninstall {' '.join(broken)}`, or delete .venv and run make again"
        return Probe(part="packages", ok=False, detail=f"{', '.join(broken)} need CUDA and torch is {torch}", fix=fix)
    return Probe(part="packages", ok=True, detail=f"ray {version('ray')}, torch {torch}, mlflow {version('mlflow')}")


def _token() -> Probe:
    path = ray_token_path()
    if not path.exists() or not path.read_text().strip():
        return Probe(part="ray token", ok=False, detail=f"{path} is missing", fix="run `mlaas up`, which makes one")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        text = f"{path} can be read by other users (mode {mode:o})"
        return Probe(part="ray token", ok=False, detail=text, fix=f"run `chmod 600 {path}`")
    return Probe(part="ray token", ok=True, detail=str(path))


def _store(settings: Settings) -> Probe:
    try:
        repository = KeyRepository(open_store(settings.store_url))
        KeyRing(repository).refresh()
        active = sum(key.revoked_at is None for key in repository.list())
    except MlaasError as error:
        return Probe(part="store", ok=False, detail=error.message, fix="run `mlaas up`, which prepares it")
    return Probe(part="store", ok=True, detail=f"{active} API keys in force")


def _router_config(settings: Settings) -> Probe:
    path = router_config_path(settings)
    try:
        config = load_config(path)
    except MlaasError as error:
        return Probe(part="router config", ok=False, detail=error.message, fix=f"mend {path}")
    return Probe(part="router config", ok=True, detail=f"{path}: {len(config.models)} aliases")
