"""The access log."""

from __future__ import annotations

import json

from mlaas.router.access_log import AccessEntry, AccessLog


def test_entries_are_lines_of_json_in_order(tmp_path):
    log = AccessLog(tmp_path / "deep" / "access.jsonl")
    log.flush()
    for number in range(3):
        log.record(AccessEntry(request_id=f"r{number}\n", at_s=1.5, model="é", status=200))
    log.flush()
    log.flush()
    entries = [json.loads(line) for line in (tmp_path / "deep" / "access.jsonl").read_text().splitlines()]
    assert [entry["request_id"] for entry in entries] == ["r0\n", "r1\n", "r2\n"]
    assert entries[0]["status"] == 200
