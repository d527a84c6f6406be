"""Processes are found by their mark, ended by id, and ports name who holds them."""

import os
import socket
import sys
import threading
from pathlib import Path

import psutil
import pytest

from mlaas.errors import Conflict
from mlaas.platform.processes import end, free_port, instance_id, owned, port_owner, require_free_port, spawn
from tests.waiting import wait_until

STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
PARENT = f"import subprocess,sys,time; subprocess.Popen([sys.executable,'-c',{STUBBORN!r}]); time.sleep(600)"


def test_a_stubborn_grandchild_of_this_instance_is_found_and_killed_and_another_instance_is_spared(tmp_path: Path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    env = dict(os.environ)
    log = tmp_path / "log"
    spawn([sys.executable, "-c", PARENT], home=mine, part="ray", env=env, log=log)
    spared = spawn([sys.executable, "-c", "import time; time.sleep(600)"], home=other, part="ray", env=env, log=log)
    try:
        wait_until(lambda: "up" in log.read_text(), what="the grandchild")
        assert len(owned(mine)) == 2
        assert owned(mine, part="mlflow") == []
        end(owned(mine), grace_s=0.2)
        wait_until(lambda: owned(mine) == [], what="the end of all")
        assert spared.poll() is None
    finally:
        end([*owned(mine), *owned(other)], grace_s=0.2)


def test_this_process_and_its_ancestors_are_never_owned(tmp_path: Path):
    code = (
        "import psutil; from pathlib import Path; from mlaas.platform.processes import owned;"
        f"print(len(owned(Path({str(tmp_path)!r}))))"
    )
    log = tmp_path / "log"
    assert spawn([sys.executable, "-c", code], home=tmp_path, part="ray", env=dict(os.environ), log=log).wait(30) == 0
    assert log.read_text().split() == ["0"]


def test_a_taken_port_names_the_process_and_the_variable():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert f"(pid {os.getpid()})" in (port_owner(port) or "")
        with pytest.raises(Conflict, match=rf"port {port} is taken by .*pid {os.getpid()}.*MLAAS_GATEWAY_PORT"):
            require_free_port(port, variable="MLAAS_GATEWAY_PORT")


def test_a_port_that_no_process_holds_any_more_is_waited_for():
    sender, receiver = socket.socketpair()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        # Under way from one socket to another, it is open, and no process has it.
        socket.send_fds(sender, [b"x"], [server.fileno()])
    assert "pid" not in (port_owner(port) or "pid")
    release = threading.Timer(0.2, lambda: (sender.close(), receiver.close()))
    release.start()
    require_free_port(port, variable="X")
    release.join()
    assert port_owner(port) is None


def test_a_free_port_can_be_listened_on():
    port = free_port()
    require_free_port(port, variable="X")
    assert port_owner(port) is None


def test_the_instance_id_is_stable_and_differs_by_home():
    assert instance_id(Path("/a")) == instance_id(Path("/a")) != instance_id(Path("/b"))
    assert psutil.pid_exists(os.getpid())
