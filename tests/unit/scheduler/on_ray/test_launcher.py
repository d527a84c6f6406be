"""The launcher without Ray: real processes, started and ended by its starter."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from mlaas.errors import PlacementError
from mlaas.scheduler.on_ray.launcher import Launcher
from mlaas.scheduler.on_ray.parts import PartOrder, PartState, drop_ends, log_path, read_ends
from tests.waiting import wait_until


@pytest.fixture
async def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Launcher]:
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path))
    monkeypatch.setenv("MLAAS_INSTANCE", "mark")
    launcher = Launcher()
    yield launcher
    launcher.close()


def order(script: str, lease_id: str = "w.1", **fields: object) -> PartOrder:
    return PartOrder(
        **{
            "lease_id": lease_id, "rank": 0, "num_parts": 1, "argv": ("sh", "-c", script), "environment": (),
            "package": None, **fields,
        }
    )  # fmt: skip


async def end_of(launcher: Launcher, lease_id: str = "w.1") -> PartState:
    version = -1
    async with asyncio.timeout(10):
        while True:
            version, states = await launcher.watch(version)
            for state in states:
                if state.lease_id == lease_id and state.exit_code is not None:
                    return state


async def first_line(path: Path) -> str:
    def read() -> str:
        wait_until(lambda: path.exists() and path.read_text(), what="output", timeout_s=10)
        return path.read_text()

    return await asyncio.to_thread(read)


async def gone(pid: int) -> None:
    await asyncio.to_thread(wait_until, lambda: not psutil.pid_exists(pid), what="the process to go", timeout_s=10)


async def test_what_a_command_prints_is_its_log_and_its_end_is_told_and_kept(launcher, tmp_path):
    await launcher.start([order("echo $GREETING; echo two >&2; exit 4", environment=(("GREETING", "one"),))])
    end = PartState(lease_id="w.1", rank=0, num_parts=1, exit_code=4, last_line="two")
    assert await end_of(launcher) == end
    assert log_path(tmp_path, "w.1").read_text() == "one\ntwo\n"
    assert read_ends(tmp_path) == [end]
    await launcher.forget("w.1")
    assert (await launcher.watch(-1))[1] == ()
    assert read_ends(tmp_path) == []


async def test_a_part_is_started_once(launcher, tmp_path):
    for _ in range(3):
        await launcher.start([order("echo x")])
    await end_of(launcher)
    await launcher.start([order("echo x")])
    assert log_path(tmp_path, "w.1").read_text() == "x\n"


async def test_a_command_that_cannot_be_found_says_so(launcher):
    await launcher.start([order("", argv=("no-such-program",))])
    end = await end_of(launcher)
    assert end.exit_code == 127
    assert "no-such-program" in end.last_line


async def test_a_signal_reaches_the_whole_group_and_names_itself(launcher, tmp_path):
    await launcher.start([order("sleep 600 & echo $!; wait")])
    child = int(await first_line(log_path(tmp_path, "w.1")))
    await launcher.stop("w.1", force=False)
    assert (await end_of(launcher)).exit_code == -signal.SIGTERM
    await gone(child)


async def test_a_daemon_of_a_command_ends_with_it_and_not_with_another(launcher, tmp_path):
    daemonize = "setsid sh -c 'echo $$; exec sleep 600' & "
    await launcher.start([order(daemonize + "sleep 600", "other.1")])
    other = int(await first_line(log_path(tmp_path, "other.1")))
    await launcher.start([order(daemonize + f"while [ ! -s {log_path(tmp_path, 'w.1')} ]; do sleep 0.02; done")])
    assert (await end_of(launcher)).exit_code == 0
    await gone(int(log_path(tmp_path, "w.1").read_text()))
    assert psutil.pid_exists(other)


async def test_nothing_outlives_the_launcher(launcher, tmp_path):
    await launcher.start([order("setsid sh -c 'sleep 600 & echo $!; wait' & trap '' TERM; wait; sleep 600")])
    grandchild = int(await first_line(log_path(tmp_path, "w.1")))
    launcher.close()
    await gone(grandchild)
    assert read_ends(tmp_path) == [], "it was lost, it has not ended"


async def test_forgetting_a_command_that_runs_kills_it_and_it_may_start_anew(launcher, tmp_path):
    await launcher.start([order("echo $$; sleep 600")])
    first = int(await first_line(log_path(tmp_path, "w.1")))
    await launcher.forget("w.1")
    await launcher.start([order("exit 0")])
    assert not psutil.pid_exists(first)
    assert (await end_of(launcher)).exit_code == 0


async def test_the_mark_of_the_instance_is_not_passed_on(launcher, tmp_path):
    await launcher.start([order('echo "[$MLAAS_INSTANCE]"')])
    await end_of(launcher)
    assert log_path(tmp_path, "w.1").read_text() == "[]\n"


async def test_a_working_directory_that_is_not_there_is_a_refusal_and_leaves_nothing(launcher):
    with pytest.raises(PlacementError, match="0000000000"):
        await launcher.start([order("true", package="0" * 64)])
    assert (await launcher.watch(-1))[1] == ()


def test_ends_of_one_lease_are_dropped_and_torn_ones_are_not_read(tmp_path):
    folder = tmp_path / "workloads" / ".ends"
    folder.mkdir(parents=True)
    for lease_id in ("a.1", "a.10"):
        end = {"part": f"{lease_id}@0", "exit_code": 0, "last_line": "", "num_parts": 1}
        (folder / f"{lease_id}@0.json").write_text(json.dumps(end))
    (folder / "b.1@0.partial").write_text('{"part"')
    drop_ends(tmp_path, "a.1")
    assert [end.lease_id for end in read_ends(tmp_path)] == ["a.10"]
    assert sorted(os.listdir(folder)) == ["a.10@0.json", "b.1@0.partial"]
