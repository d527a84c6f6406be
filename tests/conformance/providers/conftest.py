"""One simulator for all providers, and each provider in turn."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from mlaas.providers.simulated.server import Simulator
from tests.conformance.providers.asking import BASES, Upstream, build_upstream
from tests.fakes.serving import simulating


@pytest.fixture(scope="session")
def simulated() -> Iterator[tuple[str, Simulator]]:
    """The simulator's URL, and itself."""
    with simulating() as running:
        yield running


@pytest.fixture
def simulator(simulated) -> Simulator:
    """The simulator, with nothing seen."""
    simulated[1].seen.clear()
    return simulated[1]


@pytest.fixture(params=BASES)
def kind(request) -> str:
    """Each kind of provider."""
    return request.param


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    """Connections to the simulator."""
    with httpx.Client(timeout=5) as connections:
        yield connections


@pytest.fixture
def upstream(kind, simulated, client) -> Upstream:
    """The provider of the kind, and where its upstream is simulated."""
    return build_upstream(kind, simulated[0], client)
