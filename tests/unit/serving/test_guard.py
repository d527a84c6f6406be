"""The guard with real processes: a tree of them stands for an engine."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

ENGINE = (
    "import subprocess, sys; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); child.wait()"
)
REPLICA = """
import os, subprocess, sys
command = [sys.executable, "-m", "mlaas.serving.guard", str(os.getpid()), *sys.argv[1:]]
subprocess.run(command, start_new_session=True)
"""


@pytest.fixture
def replica():
    """A process that runs an engine of two processes under a guard."""
    process = subprocess.Popen(
        [sys.executable, "-c", REPLICA, sys.executable, "-c", ENGINE],
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_nothing_outlives_a_killed_replica(replica):
    worker = psutil.Process(int(replica.stdout.readline()))
    engine = worker.parent()
    guard = engine.parent()
    os.kill(replica.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs([worker, engine, guard], timeout=10)
    assert len(gone) == 3
    assert alive == []


def test_a_request_to_stop_ends_the_engine(replica):
    worker = psutil.Process(int(replica.stdout.readline()))
    engine = worker.parent()
    guard = engine.parent()
    guard.terminate()
    gone, _ = psutil.wait_procs([worker, engine, guard], timeout=10)
    assert len(gone) == 3


def test_nothing_outlives_the_first_process_of_an_engine(replica):
    worker = psutil.Process(int(replica.stdout.readline()))
    engine = worker.parent()
    guard = engine.parent()
    engine.kill()
    gone, _ = psutil.wait_procs([worker, engine, guard], timeout=10)
    assert len(gone) == 3


def test_a_guard_whose_parent_is_gone_starts_nothing():
    command = [sys.executable, "-m", "mlaas.serving.guard", "1", "echo", "started"]
    done = subprocess.run(command, capture_output=True, start_new_session=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""
