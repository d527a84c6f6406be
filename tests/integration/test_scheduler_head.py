"""The whole head is killed, and brought up again: the queue goes on, nothing is lost, and nothing runs twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlaas.platform.head import Head
from mlaas.platform.instance import down
from mlaas.platform.processes import owned
from mlaas.platform.scheduler import Scheduler
from mlaas.scheduler.live.lifecycle import State
from mlaas.settings import ray_token_path
from tests.fakes.bare_instance import BareInstance, bare_instance
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BareInstance]:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    instance = bare_instance(tmp_path / "home")
    try:
        instance.up()
        yield instance
    finally:
        down(instance.settings)
        assert owned(instance.settings.home) == []


def test_a_head_that_was_killed_goes_on_with_the_queue(instance, tmp_path):
    go, starts, done = tmp_path / "go", tmp_path / "starts", tmp_path / "done"
    waits = f"echo $$ >> {starts}; while [ ! -e {go} ]; do sleep 0.1; done"
    instance.submit(("ended", "1", f"echo once >> {done}"), ("running", "8", waits), ("waiting", "8", "true"))
    instance.wait_for("ended", State.SUCCEEDED, attempt=1)
    instance.wait_for("running", State.RUNNING, attempt=1)
    wait_until(starts.exists, what="the command to run")
    (first,) = starts.read_text().split()

    instance.kill()
    wait_until(lambda: not psutil.pid_exists(int(first)), what="the command to die with its head", timeout_s=10)
    assert not Head(instance.settings).probe().ok
    assert not Scheduler(instance.settings).probe().ok
    instance.up()

    instance.wait_for("running", State.RUNNING, attempt=2)
    go.touch()
    instance.wait_for("running", State.SUCCEEDED, attempt=2)
    instance.wait_for("waiting", State.SUCCEEDED, attempt=1)
    wait_until(lambda: len(starts.read_text().split()) == 2, what="the second start")
    assert done.read_text() == "once\n"
    assert ray_token_path().exists()
