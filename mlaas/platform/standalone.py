"""The router alone: a Ray head and the gateway on it, for as long as a command runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlaas.errors import ConfigError, Conflict
from mlaas.platform.head import Head
from mlaas.platform.instance import Started, create_first_keys, down
from mlaas.platform.parts import Probe, ensure
from mlaas.platform.processes import free_port, owned
from mlaas.platform.serve import Gateway
from mlaas.router.config_file import load_config
from mlaas.settings import Settings
from mlaas.store.engine import migrate

HEAL_S = 5.0
"""Time between two looks at whether both parts are up."""


def standalone_settings(settings: Settings, *, config: Path, port: int) -> Settings:
    """Return the settings of a router alone: the instance's home and keys, and ports that nobody else has."""
    return replace(
        settings,
        gateway_port=port,
        dashboard_port=free_port(),
        gcs_port=free_port(),
        router_config=str(config.absolute()),
    )


def run_gateway(
    settings: Settings,
    *,
    replicas: int,
    stop: threading.Event,
    progress: Callable[[Probe], None],
    started: Callable[[Started], None],
) -> None:
    """Run the router until `stop` is set, heal it when it dies, and leave no process behind.

    Args:
        settings: of `standalone_settings`.
        replicas: gateway processes behind the ingress, from 1.
        stop: ends it.
        progress: called with the probe of each part as it is up.
        started: called once, when the router answers.

    Raises:
        ConfigError: the router's file is wrong, or `replicas` is.
        Conflict: the instance is up already, or a port is taken.
        MlaasError: a part does not come up.
    """
    if replicas < 1:
        raise ConfigError("bad_replicas", f"--replicas {replicas} is too few; give 1 or more")
    load_config(Path(settings.router_config))
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if owned(settings.home, part="ray"):
        way_out = "set MLAAS_ROUTER_CONFIG and `mlaas up` to give it this file, or set MLAAS_HOME to another folder"
        raise Conflict("instance_is_up", f"the instance of {settings.home} runs a gateway already; {way_out}")
    migrate(settings.store_url)
    parts = (Head(settings), Gateway(settings, replicas=replicas, is_alone=True))
    try:
        for part in parts:
            ensure(part)
            progress(part.probe())
        started(Started(healed=(), admin_key=create_first_keys(settings)))
        while not stop.wait(HEAL_S):
            for part in parts:
                ensure(part)
    finally:
        down(settings)
