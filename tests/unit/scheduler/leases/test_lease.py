"""The life of a gang in the hands of the process that asked for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from mlaas.errors import ConfigError, PlatformError
from mlaas.scheduler.leases import hold, holder
from mlaas.scheduler.leases.holder import lease
from mlaas.scheduler.live.types import Outcome, Signal
from mlaas.scheduler.requests.spec import WorkloadSpec
from tests.fakes.scripted_scheduler import GANG, ScriptedScheduler
from tests.waiting import wait_until

SPEC = WorkloadSpec(gang=GANG)


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> ScriptedScheduler:
    monkeypatch.setattr(hold, "RETRY_S", 0.01)
    monkeypatch.setattr(holder, "RETRY_S", 0.01)
    monkeypatch.delenv("MLAAS_LEASE_ID", raising=False)
    return ScriptedScheduler()


@pytest.fixture
def said() -> list[str]:
    return []


def test_a_gang_is_held_while_the_block_runs_and_given_back_after_it(
    scheduler: ScriptedScheduler, said: list[str]
) -> None:
    scheduler.place(("n1", 1), ("n2", 1))
    with lease(SPEC, scheduler=scheduler, say=said.append) as gang:
        assert (gang.num_workers, gang.node_ids(), gang.attempt) == (2, ("n1", "n2"), 1)
        assert gang.placement_group == "mlaas-w1.1"
        gang.hand_over()
        gang.report(done=0.5, left_s=10.0)
        assert gang.yield_signal() is None
        assert not gang.is_lost
    assert scheduler.handed_over == ["w1.1"]
    assert scheduler.reports == [(0.5, 10.0)]
    assert scheduler.given_back == [("w1.1", Outcome.FINISHED, "")]
    assert said == ["w1: it fits"]


def test_waiting_says_why_once_for_each_reason_and_asks_again_by_id(
    scheduler: ScriptedScheduler, said: list[str]
) -> None:
    def go_on(text: str) -> None:
        said.append(text)
        if scheduler.reason == "behind others":
            scheduler.reason = "no node is free"
        else:
            scheduler.place(("n1", 1))

    with lease(SPEC, scheduler=scheduler, say=go_on):
        pass
    assert said == ["w1 waits: behind others", "w1 waits: no node is free", "w1: it fits"]
    assert scheduler.asked[0].startswith("spec held-")
    assert set(scheduler.asked[1:]) == {"w1"}


def test_an_exception_gives_back_as_failed_with_its_text(scheduler: ScriptedScheduler, said: list[str]) -> None:
    scheduler.place(("n1", 1))
    with pytest.raises(ValueError, match="boom"), lease(SPEC, scheduler=scheduler, say=said.append):
        raise ValueError("boom")
    assert scheduler.given_back == [("w1.1", Outcome.FAILED, "ValueError: boom")]


def test_told_to_yield_it_gives_back_waits_and_goes_on_at_another_size(
    scheduler: ScriptedScheduler, said: list[str]
) -> None:
    scheduler.place(("n1", 2))
    with lease(SPEC, scheduler=scheduler, say=said.append) as gang:
        scheduler.tell(Signal.YIELD, reason="serving needs a node", within_s=60.0, size=1)
        wait_until(gang.yield_signal, what="the signal", timeout_s=5)
        asked = gang.yield_signal()
        assert asked is not None
        assert (asked.new_size, asked.reason) == (1, "serving needs a node")
        assert 55 < asked.within_s <= 60
        scheduler.place(("n2", 1))
        gang.yield_and_wait()
        assert (gang.num_workers, gang.node_ids(), gang.attempt) == (1, ("n2",), 2)
        assert gang.yield_signal() is None
    assert [(lease_id, outcome) for lease_id, outcome, _ in scheduler.given_back] == [
        ("w1.1", Outcome.YIELDED), ("w1.2", Outcome.FINISHED)
    ]  # fmt: skip


def test_a_gang_that_was_taken_is_not_given_back_and_the_next_one_is_waited_for(
    scheduler: ScriptedScheduler, said: list[str]
) -> None:
    scheduler.place(("n1", 1))
    with lease(SPEC, scheduler=scheduler, say=said.append) as gang:
        scheduler.tell(Signal.OVER, reason="killed: it ignored the signal to yield")
        wait_until(lambda: gang.is_lost, what="the loss", timeout_s=5)
        asked = gang.yield_signal()
        assert asked is not None
        assert asked.within_s == 0
        scheduler.place(("n2", 1))
        gang.yield_and_wait()
        assert not gang.is_lost
    assert scheduler.given_back == [("w1.2", Outcome.FINISHED, "")]


def test_handing_over_what_is_lost_shows_the_loss(scheduler: ScriptedScheduler, said: list[str]) -> None:
    scheduler.place(("n1", 1))
    with lease(SPEC, scheduler=scheduler, say=said.append) as gang:
        scheduler.tell(Signal.OVER)
        gang.hand_over()
        assert gang.is_lost


@pytest.fixture
def restarting(scheduler: ScriptedScheduler) -> Iterator[threading.Event]:
    """A scheduler that is down until it has been asked for something."""
    was_asked = threading.Event()
    up_again = threading.Thread(target=lambda: (was_asked.wait(5), setattr(scheduler, "is_down", False)))
    up_again.start()
    yield was_asked
    was_asked.set()
    up_again.join()


def test_a_scheduler_that_restarts_is_waited_for_when_asking(
    scheduler: ScriptedScheduler, restarting: threading.Event, said: list[str]
) -> None:
    scheduler.place(("n1", 1))
    scheduler.is_down = True
    with lease(SPEC, scheduler=scheduler, say=lambda text: (said.append(text), restarting.set())):
        pass
    assert said == ["the scheduler restarts", "w1: it fits"]


def test_a_scheduler_that_restarts_is_waited_for_when_giving_back_and_misses_reports_alone(
    scheduler: ScriptedScheduler, restarting: threading.Event, said: list[str]
) -> None:
    scheduler.place(("n1", 1))
    with lease(SPEC, scheduler=scheduler, say=said.append) as gang:
        scheduler.is_down = True
        gang.report(done=0.1)
        restarting.set()
    assert scheduler.reports == []
    assert scheduler.given_back == [("w1.1", Outcome.FINISHED, "")]


def test_a_process_that_the_scheduler_started_gets_its_gang_and_ends_when_it_yields(
    scheduler: ScriptedScheduler, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAAS_LEASE_ID", "w1.1")
    scheduler.place(("n1", 1))
    with pytest.raises(SystemExit) as ended, lease(scheduler=scheduler, say=said.append) as gang:
        gang.yield_and_wait()
    assert ended.value.code == 0
    assert scheduler.asked == ["w1.1"]
    assert scheduler.given_back == [("w1.1", Outcome.YIELDED, "")]


def test_a_process_that_the_scheduler_started_outlives_the_signal_for_commands_that_know_no_leases(
    scheduler: ScriptedScheduler, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    monkeypatch.setenv("MLAAS_LEASE_ID", "w1.1")
    scheduler.place(("n1", 1))
    try:
        with lease(scheduler=scheduler, say=said.append):
            signal.raise_signal(signal.SIGTERM)
        assert got == []
        signal.raise_signal(signal.SIGTERM)
        assert got == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_a_spec_or_a_scheduler_the_error_says_so(scheduler: ScriptedScheduler, said: list[str]) -> None:
    with pytest.raises(ConfigError, match="asks for its gang with a spec"), lease(scheduler=scheduler):
        pass

    def attach(*_: object, **__: object) -> None:
        raise PlatformError("no_scheduler", "no scheduler runs on this cluster; `mlaas up` starts it")

    scheduler.attach = attach  # type: ignore[method-assign]  # one that is not there
    with pytest.raises(PlatformError, match="mlaas up"), lease(SPEC, scheduler=scheduler, say=said.append):
        pass
    assert said == []
