import pytest

from tests.fakes.live_scheduler import Bench


@pytest.fixture
async def bench(tmp_path):
    """Two nodes of four GPUs, and a scheduler that leads."""
    return await Bench(tmp_path).start()
