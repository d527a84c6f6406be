"""The cluster and workloads as terminals show them."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from mlaas.cli.cluster_tables import bar, cluster_tables
from mlaas.cli.workload_text import gang_text, in_turn, lines_text, row_of, shortened, why_text

NODE = "0123456789abcdef" * 3 + "01234567"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def node(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "host": "",
        "labels": [["rack", "r1"], ["ray.io/node-id", "x"]],
        "schedulable": True,
        "capacity": [["GPU", 8.0], ["memory", 2.0**36], ["node:10.0.0.1", 1.0]],
        "used": [["GPU", 4.0]],
        "outside": [["GPU", 2.0]],
        "gangs": ["w-1"],
        **fields,
    }


def gang(workload_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "workload_id": workload_id,
        "name": "llama",
        "tenant": "ada",
        "queue": "research",
        "kind": "train",
        "placement": {"workers": [[NODE, 3], ["n2", 1]]},
        "gpus": 4.0,
        "since_s": 120.0,
        "attained_s": 300.0,
        "left_s": 100.0,
        "yield_within_s": None,
        **fields,
    }


def queue(name: str, parent: str | None = None, **fields: Any) -> dict[str, Any]:
    amounts = {"guarantee": [["GPU", 4.0]], "used": [["GPU", 4.0]], "borrowed": [["GPU", 0.0]], "lent": []}
    shares = {"average_share": 0.25, "due_share": 0.5}
    return {"name": name, "parent": parent, "num_running": 1, "num_waiting": 2, **amounts, **shares, **fields}


def view(**fields: Any) -> dict[str, Any]:
    return {
        "nodes": [node(NODE)],
        "gangs": [],
        "queues": [],
        "tenants": [],
        "others": [],
        "fragmentation": {"idle_nodes": 0, "wasted": 0.0},
        "num_waiting": 0,
        "total_gpus": 8.0,
        "used_gpus": 4.0,
        **fields,
    }


def rendered(renderable: Any) -> list[str]:
    console = Console(width=200, record=True, file=StringIO())
    console.print(renderable)
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize(
    ("part", "outside", "expected"),
    [
        (0, 0, "··········"),
        (8, 0, "██████████"),
        (4, 2, "███████▌··"),
        (0.8, 0, "█·········"),
        (0.1, 0, "▏·········"),
        (8, 8, "██████████"),
    ],
)
def test_a_bar_is_ten_cells_wide_whatever_it_shows(part: float, outside: float, expected: str) -> None:
    assert bar(part, 8, outside=outside).plain == expected
    assert bar(part, 0).plain == "··········"


def test_a_node_shows_what_its_gangs_and_others_use() -> None:
    head, titles, line = rendered(cluster_tables(view()))
    assert head == "1 node · 4 of 8 GPUs used (50%) · 0 running · 0 waiting · 0 idle"
    assert titles.split() == ["node", "GPU", "memory,", "GiB", "labels", "gangs"]
    assert line.split() == ["01234567", "███████▌··", "6/8", "··········", "0/64", "rack=r1", "w-1"]


def test_a_node_that_drains_is_marked() -> None:
    assert rendered(cluster_tables(view(nodes=[node("n1", schedulable=False)])))[2].startswith("n1 drains")


def test_a_cluster_without_gpus_says_nothing_of_them() -> None:
    nodes = [node("n1", capacity=[["CPU", 4.0]], used=[["CPU", 1.0]])]
    shown = rendered(cluster_tables(view(total_gpus=0.0, nodes=nodes)))
    assert shown[0] == "1 node · 0 running · 0 waiting · 0 idle"
    assert "1/4" in shown[2]


def test_gangs_show_progress_and_those_told_to_yield_their_deadline() -> None:
    gangs = [gang("w-1"), gang("w-2", yield_within_s=20.0), gang("w-3")]
    lines = rendered(cluster_tables(view(gangs=gangs), most_gangs=2))
    first, second, rest = lines[5:8]
    expected = "w-1 llama ada research train 4 4 2 min ███████▌·· 75% 1.67 min"
    assert " ".join(first.split()) == expected
    assert second.endswith("yields within 20 s")
    assert rest == "and 1 more"


def test_what_others_run_is_counted_and_stands_below_the_own() -> None:
    tenant = {"num_running": 1, "num_waiting": 0, "gpus": 4.0, "share": 0.5}
    others = [{**tenant, "name": "serving", "num_running": 2, "num_waiting": 3}]
    lines = rendered(cluster_tables(view(gangs=[gang("w-1")], tenants=[{**tenant, "name": "ada"}], others=others)))
    assert " · 3 running · " in lines[0]
    assert [line.split()[:4] for line in lines[-2:]] == [["ada", "1", "0", "4"], ["serving", "2", "3", "4"]]


def test_queues_stand_below_their_cohorts() -> None:
    queues = [queue("b", "company"), queue("company"), queue("a", "company"), queue("alone")]
    lines = rendered(cluster_tables(view(queues=queues)))
    assert [line.split("1 ")[0].rstrip() for line in lines[5:]] == ["alone", "company", "  a", "  b"]
    assert lines[5].split()[1:] == ["1", "2", "4", "GPU", "4", "GPU", "25%", "50%"]


def test_a_queue_lists_what_runs_then_who_waits_in_turn_then_what_has_ended() -> None:
    states = {"a": "succeeded", "b": "pending", "c": "pending", "d": "running", "e": "pending"}
    turns = {"c": 2, "e": 1}
    found = [{"id": name, "state": state, "position": turns.get(name)} for name, state in states.items()]
    assert [each["id"] for each in in_turn(found)] == ["d", "e", "c", "b", "a"]


def test_a_workload_is_a_line_with_its_time_in_its_state_and_the_reason() -> None:
    workload = {
        "id": "w-1",
        "position": 3,
        "name": "llama",
        "state": "pending",
        "submitted_at": "2026-11-23T10:00:00+00:00",
        "started_at": "2026-11-23T11:00:00+00:00",
        "ended_at": None,
        "tenant": "ada",
        "queue": "research",
        "reason": f"no room on {NODE}",
        "spec": {"workers": "2..8", "gpus": 2.0, "cpus": 1.0, "priority": "high"},
    }
    row = {name: str(value) for name, value in row_of(workload, now=NOW, hosts={}).items()}
    assert row["turn"] == "3"
    assert row["for"] == "2 h"
    assert row["gang"] == "2..8 x 2 GPUs"
    assert row["why"] == "no room on 01234567"
    assert str(row_of({**workload, "state": "running"}, now=NOW, hosts={})["for"]) == "60 min"


def test_gangs_are_named_by_what_is_scarce() -> None:
    assert gang_text({"workers": 1, "gpus": 0.5, "cpus": 4.0}) == "0.5 GPUs"
    assert gang_text({"workers": 4, "gpus": 0.0, "cpus": 4.0}) == "4 x 4 CPUs"
    assert gang_text({"workers": 1, "gpus": 0.0, "cpus": 0.0, "resources": {"tpu": 1.0}}) == "1 tpu"


def test_long_node_ids_are_shortened_and_nothing_else() -> None:
    assert shortened(f"on {NODE} and w-0123456789ab") == "on 01234567 and w-0123456789ab"
    assert shortened(NODE + "0") == NODE + "0"
    assert shortened(f"3 on {NODE}", {NODE: "gpu-7"}) == "3 on 01234567 (gpu-7)"


def test_who_is_further_back_is_told_how_many_go_first() -> None:
    workload = {"state": "pending", "position": 5, "reason": "behind others that want the same capacity"}
    assert why_text(workload, hosts={}) == "number 5; 4 before it"
    assert why_text({**workload, "position": 1}, hosts={}) == workload["reason"]
    assert why_text({**workload, "reason": "quota"}, hosts={}) == "quota"


def test_an_explanation_keeps_all_its_lines() -> None:
    text = lines_text(["w-1 is pending: quota", "waits: x", "  more"], hosts={}, state="pending")
    assert text.plain == "w-1 is pending: quota\n  waits: x\n    more"
