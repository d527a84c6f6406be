"""Ids of requests."""

from __future__ import annotations

import pytest

from mlaas.router.record import new_id


def test_ids_are_all_different_and_sort_by_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for time_ns in range(1_800_000_000_000_000_000, 1_800_000_000_100_000_000, 1_000_000):
        monkeypatch.setattr("time.time_ns", lambda time_ns=time_ns: time_ns)
        ids.append(new_id())
    assert ids == sorted(set(ids))
    assert {len(each) for each in ids} == {32}
