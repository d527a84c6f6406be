"""How workers learn that they are to leave."""

from pathlib import Path

import pytest

from mlaas.training import leaving
from mlaas.training.leaving import LeaveRequest, LeaveWatch


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(leaving, "_LOOK_INTERVAL_S", 0.0)
    return tmp_path / "leave"


def test_workers_stay_until_they_are_asked_and_those_of_the_next_gang_stay_again(path: Path) -> None:
    watch, request = LeaveWatch(path), LeaveRequest(path)
    request.withdraw()
    assert not watch.is_asked()
    request.make()
    assert watch.is_asked()
    assert watch.is_asked()
    request.withdraw()
    assert not LeaveWatch(path).is_asked()


def test_workers_without_a_driver_stay(path: Path) -> None:
    assert not LeaveWatch(path).is_asked()


def test_looking_again_at_once_opens_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_LOOK_INTERVAL_S", 3600.0)
    LeaveRequest(path).make()
    watch = LeaveWatch(path)
    assert watch.is_asked()
    path.unlink()
    assert not watch.is_asked()
