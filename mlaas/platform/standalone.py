"""The router alone: a Ray head and the gateway on it, for as long as a command runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mlaas.errors import ConfigError, Conflict, MlaasError
from mlaas.platform.head import Head
from mlaas.platform.instance import Started, create_first_keys, down
from mlaas.platform.parts import Part, Probe, ensure
from mlaas.platform.processes import free_port, owned, require_free_port
from mlaas.platform.serve import Gateway
from mlaas.settings import Settings
from mlaas.store.engine import migrate

LOOK_S = 2.0
"""Time between two looks at whether both parts are up."""
PATIENT_LOOKS = 3
"""A part counts as down after this many looks in a row: one slow answer of a busy machine restarts nothing."""
RESTART_LOOKS = 45
"""A gateway that stays down for so long gets a new Ray head. Ray Serve itself brings back a process within half a
minute, and a gateway that starts on a busy machine takes a minute."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
    settings: Settings, *, replicas: int, progress: Callable[[Probe], None], started: Callable[[Started], None]
) -> None:
    """Run the router until SIGINT or SIGTERM, heal it when it dies, and leave no process behind.

    Args:
        settings: of `standalone_settings`.
        replicas: gateway processes behind the ingress, from 1.
        progress: called with the probe of each part as it is up, and when it is down or up again later.
        started: called once, when the router answers.

    Raises:
        ConfigError: `replicas` is wrong.
        Conflict: the instance is up already, or a port is taken.
        MlaasError: a part does not come up.
    """
    if replicas < 1:
        raise ConfigError("bad_replicas", f"--replicas {replicas} is too few; give 1 or more")
    if owned(settings.home, part="ray"):
        way_out = "set MLAAS_ROUTER_CONFIG and `mlaas up` to give it this file, or set MLAAS_HOME to another folder"
        raise Conflict("instance_is_up", f"the instance of {settings.home} runs a gateway already; {way_out}")
    require_free_port(settings.gateway_port, variable="--port")
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    migrate(settings.store_url)
    head, gateway = Head(settings, is_durable=False), Gateway(settings, replicas=replicas, is_alone=True)
    with _until_told(lambda: down(settings)):
        for part in (head, gateway):
            ensure(part)
            progress(part.probe())
        started(Started(healed=(), admin_key=create_first_keys(settings)))
        _keep_up(head, gateway, progress=progress)


def _keep_up(head: Part, gateway: Part, *, progress: Callable[[Probe], None]) -> None:
    """Look at both parts for ever, and start again what stays down; what cannot be started is tried again."""
    num_bad = 0
    while True:
        time.sleep(LOOK_S)
        # In this order: without its head, Ray Serve does not even say that it is down.
        ill = next((probe for part in (head, gateway) if not (probe := part.probe()).ok), None)
        if ill is None:
            if num_bad >= PATIENT_LOOKS:
                progress(gateway.probe())
            num_bad = 0
            continue
        num_bad += 1
        if num_bad == PATIENT_LOOKS:
            progress(replace(ill, fix="starting it again"))
        if num_bad % PATIENT_LOOKS:
            continue
        try:
            if ill.part == head.name or num_bad % RESTART_LOOKS == 0:
                head.start()
                ensure(head)
            gateway.start()
        except MlaasError as error:
            progress(Probe(part=ill.part, ok=False, detail=error.message, fix="trying again"))


@contextmanager
def _until_told(clean_up: Callable[[], object]) -> Iterator[None]:
    """Run the block until it ends or a signal ends it, then clean up, which no further signal can interrupt."""

    def leave(*_: object) -> None:
        deafen()
        raise KeyboardInterrupt

    def deafen() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    before = {number: signal.signal(number, leave) for number in _SIGNALS}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        deafen()
        clean_up()
        for number, handler in before.items():
            signal.signal(number, handler)
