"""What users and holders see of the live scheduler."""

import pytest

from tests.fakes.live_scheduler import Bench


@pytest.fixture
async def bench(tmp_path):
    return await Bench(tmp_path).start()


async def test_a_job_runs_to_its_end(bench):
    job_id = await bench.submit()
    await bench.settle()
    assert await bench.state(job_id) == "running"
    assert list(bench.cluster.running) == [f"{job_id}.1"]
    bench.cluster.end(f"{job_id}.1")
    await bench.settle()
    assert await bench.state(job_id) == "succeeded"
    assert not bench.cluster.groups
    assert not bench.cluster.commands
    assert await bench.kinds(job_id) == ["submitted", "placed", "running", "succeeded"]
