"""Replays of small traces made here: exact outcomes worked out by hand, and what holds for any trace."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mlaas.cli.main import app
from mlaas.errors import ConfigError
from mlaas.scheduler.decision.ordering import POLICIES
from mlaas.scheduler.simulate.machines import equal_nodes, gang_of, read_machines
from mlaas.scheduler.simulate.replay import Outcome, Terms, replay
from mlaas.scheduler.simulate.report import summarize
from mlaas.scheduler.simulate.traces import TraceJob, read_trace

EXACT = Terms(estimate_error=1.0, restart_cost_s=60.0)


def run(jobs: list[TraceJob], policy: str, *, nodes: int = 1, gpus: int = 1, terms: Terms = EXACT) -> Outcome:
    return replay(jobs, equal_nodes(num_nodes=nodes, gpus_per_node=gpus), POLICIES[policy], terms)


def finishes(outcome: Outcome) -> list[float]:
    return [fate.finished_s for fate in outcome.fates]


def test_first_come_first_served() -> None:
    jobs = [TraceJob(0.0, 100.0, 1), TraceJob(1.0, 10.0, 1), TraceJob(2.0, 5.0, 1)]
    assert finishes(run(jobs, "fifo")) == [100.0, 110.0, 115.0]
    assert finishes(run(jobs, "sjf")) == [100.0, 115.0, 105.0]


def test_the_oracle_preempts_for_free() -> None:
    jobs = [TraceJob(0.0, 100.0, 1), TraceJob(10.0, 20.0, 1)]
    outcome = run(jobs, "srsf-oracle")
    assert finishes(outcome) == [120.0, 30.0]
    assert summarize(outcome).lost_work_s == 0.0


def test_a_preemption_costs_its_restart_on_all_gpus() -> None:
    jobs = [TraceJob(0.0, 10_000.0, 4), TraceJob(1_000.0, 20.0, 1)]
    outcome = run(jobs, "mlaas", gpus=4)
    assert finishes(outcome) == [10_080.0, 1_020.0]
    report = summarize(outcome)
    assert (report.preemptions, report.lost_work_s) == (1, 240.0)


def test_report_of_a_trace_worked_out_by_hand() -> None:
    jobs = [TraceJob(0.0, 100.0, 1, "ann"), TraceJob(0.0, 50.0, 1, "bob", deadline_s=120.0)]
    report = summarize(run(jobs, "fifo"))
    assert (report.avg_jct_s, report.p50_jct_s, report.makespan_s, report.avg_wait_s) == (125.0, 125.0, 150.0, 50.0)
    assert report.utilization == pytest.approx(1.0)
    assert report.worst_tenant_slowdown == pytest.approx(3.0)
    assert report.missed_deadlines == 1
    assert [tenant.gpu_share for tenant in report.tenants] == pytest.approx([2 / 3, 1 / 3])


def test_jobs_too_large_are_refused_and_counted_not_dropped_in_silence() -> None:
    outcome = run([TraceJob(0.0, 10.0, 64), TraceJob(0.0, 10.0, 1)], "mlaas", nodes=2, gpus=8)
    assert summarize(outcome).refused == 1
    assert "the largest gang" in outcome.fates[0].refusal


@pytest.mark.parametrize(
    ("num_gpus", "shape"),
    [(0.5, (0.5, 1)), (1, (1, 1)), (8, (8, 1)), (16, (8, 2)), (12, (4, 3)), (9, (1, 9)), (128, (8, 16))],
)
def test_gangs_fill_nodes_whole_where_they_can(num_gpus: float, shape: tuple[float, int]) -> None:
    gang = gang_of(TraceJob(0.0, 1.0, num_gpus), gpus_per_node=8)
    assert (gang.worker.gpus, gang.min_workers) == shape
    assert not gang.is_elastic


def test_an_elastic_job_runs_at_the_size_that_is_free_and_takes_as_much_longer() -> None:
    elastic = TraceJob(0.0, 1_000.0, 4, min_gpus=2, max_gpus=8)
    assert finishes(run([elastic], "mlaas", gpus=8)) == [500.0]
    assert finishes(run([elastic], "mlaas", gpus=2)) == [2_000.0]


def test_an_elastic_job_grows_when_others_end_and_pays_for_it() -> None:
    jobs = [TraceJob(0.0, 600.0, 6), TraceJob(0.0, 8_000.0, 8, min_gpus=2, max_gpus=8)]
    outcome = run(jobs, "mlaas", gpus=8)
    assert finishes(outcome) == [600.0, 600.0 + 60.0 + 8_000.0 - 600.0 * 2 / 8]
    assert summarize(outcome).lost_work_s == 60.0 * 8


def synthetic(seed: int, count: int) -> list[TraceJob]:
    rng = np.random.default_rng(seed)
    widths = rng.choice([0.25, 0.5, 1, 1, 1, 1, 2, 4, 8, 16], size=count)
    submit = np.cumsum(rng.exponential(120.0, size=count))
    runtime = np.exp(rng.normal(6.5, 1.8, size=count)).clip(1.0, 2e5)
    return [
        TraceJob(float(submit[n]), float(runtime[n]), float(widths[n]), f"t{rng.integers(4)}", int(rng.random() < 0.1))
        for n in range(count)
    ]


@pytest.mark.parametrize("policy", sorted(POLICIES))
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_trace_ends_and_no_policy_beats_physics(policy: str, seed: int) -> None:
    jobs = synthetic(seed, 120)
    outcome = run(jobs, policy, nodes=3, gpus=8, terms=Terms(seed=seed))
    for fate in outcome.fates:
        assert fate.finished_s >= fate.job.submit_s + fate.job.duration_s - 1e-6
        restarts = fate.preemptions * (0.0 if policy == "srsf-oracle" else 60.0)
        spent = fate.finished_s - fate.job.submit_s - fate.waited_s
        assert fate.job.duration_s - 1e-3 <= spent <= fate.job.duration_s + restarts + 1e-3
    assert (outcome.busy_gpus <= outcome.num_gpus).all()
    assert outcome.backlog_gpus[-1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("policy", ["sjf", "mlaas"])
def test_a_replay_is_deterministic_and_its_seed_matters(policy: str) -> None:
    jobs = synthetic(1, 150)
    first, again, other = (run(jobs, policy, nodes=2, gpus=8, terms=Terms(seed=seed)) for seed in (5, 5, 6))
    assert finishes(first) == finishes(again)
    assert finishes(first) != finishes(other)


def test_the_policy_beats_shortest_job_first_on_a_loaded_cluster() -> None:
    jobs = synthetic(2, 1_500)
    ours, theirs = (summarize(run(jobs, policy, nodes=4, gpus=8, terms=Terms())) for policy in ("mlaas", "sjf"))
    assert ours.avg_jct_s < theirs.avg_jct_s
    assert ours.worst_tenant_slowdown < theirs.worst_tenant_slowdown


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_csv_traces_and_their_optional_columns(tmp_path: Path) -> None:
    header = "submit_s,duration_s,num_gpus,tenant,priority,estimate_s,deadline_s,name"
    text = f"{header}\n50,10,0.5,ann,3,20,90,x\n10,5,2,,,,,\n"
    late, early = TraceJob(40.0, 10.0, 0.5, "ann", 3, 20.0, 80.0, "x"), TraceJob(0.0, 5.0, 2.0)
    assert read_trace(write(tmp_path / "t.csv", text), trace_format="csv") == [early, late]


def test_deadlines_before_their_submission_are_read_as_relative(tmp_path: Path) -> None:
    text = "submit_s,duration_s,num_gpus,deadline_s\n0,10,1,100\n500,10,1,100\n"
    jobs = read_trace(write(tmp_path / "t.csv", text), trace_format="csv")
    assert [job.deadline_s for job in jobs] == [100.0, 600.0]


def test_philly_traces(tmp_path: Path) -> None:
    header = "timestamp,duration,num_gpus,gpu_time,cluster"
    text = f"{header}\n2017-10-09 07:01:55,66.0,1,66.0,b\n2017-10-09 07:00:55,3.0,4,12.0,a\n"
    jobs = read_trace(write(tmp_path / "t.csv", text), trace_format="philly")
    assert jobs == [TraceJob(0.0, 3.0, 4.0, "a"), TraceJob(60.0, 66.0, 1.0, "b")]


def test_swf_traces_leave_out_jobs_that_never_ran(tmp_path: Path) -> None:
    lines = [
        "; comment",
        "1 100 5 3600 4 -1 -1 4 7200 -1 1 12 1 1 1 1 -1 -1",
        "2 160 5 -1 -1 -1 -1 4 7200 -1 0 12 1 1 1 1 -1 -1",
        "3 220 5 60 2 -1 -1 2 -1 -1 1 13 1 1 1 1 -1 -1",
    ]
    jobs = read_trace(write(tmp_path / "t.swf", "\n".join(lines)), trace_format="swf")
    assert jobs == [TraceJob(0.0, 3600.0, 4.0, "user-12", estimate_s=7200.0), TraceJob(120.0, 60.0, 2.0, "user-13")]


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("1,nan,1", "duration_s"),
        ("1,-5,1", "duration_s"),
        ("1,0,1", "duration_s"),
        ("x,5,1", "submit_s"),
        ("1,5,0", "num_gpus"),
        ("1,5,-2", "num_gpus"),
        ("1,5,1.5", "whole number"),
        ("1,5,inf", "num_gpus"),
        ("1,5", "one value for each column"),
    ],
)
def test_impossible_rows_are_refused_with_their_line(tmp_path: Path, row: str, word: str) -> None:
    path = write(tmp_path / "t.csv", f"submit_s,duration_s,num_gpus\n0,1,1\n{row}\n")
    with pytest.raises(ConfigError, match=f":3: .*{word}"):
        read_trace(path, trace_format="csv")


def test_unreadable_traces_are_refused(tmp_path: Path) -> None:
    for path, trace_format, code in (
        (tmp_path / "none.csv", "csv", "trace_unreadable"),
        (write(tmp_path / "empty.csv", "submit_s,duration_s,num_gpus\n"), "csv", "trace_empty"),
        (write(tmp_path / "other.csv", "a,b\n1,2\n"), "csv", "trace_columns"),
        (tmp_path / "none.csv", "xml", "unknown_format"),
    ):
        with pytest.raises(ConfigError) as refused:
            read_trace(path, trace_format=trace_format)
        assert refused.value.code == code


@pytest.mark.parametrize("wrong", [{"estimate_error": 0.5}, {"estimate_error": math.nan}, {"restart_cost_s": -1.0}])
def test_impossible_terms_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Terms(**wrong)


CLUSTER = """
nodes:
  - {name: big, count: 2, gpus: 8, labels: {accelerator: h100}}
  - {name: small, count: 1, gpus: 4}
queues:
  - {name: org}
  - {name: ann, parent: org, guarantee: {GPU: 12}}
  - {name: bob, parent: org, guarantee: {GPU: 8}, borrowing_limit: {GPU: 0}}
"""


def test_a_cluster_file_brings_nodes_and_quotas(tmp_path: Path) -> None:
    machines = read_machines(write(tmp_path / "cluster.yaml", CLUSTER))
    assert sum(node.capacity.gpus for node in machines.nodes) == 20
    jobs = [TraceJob(0.0, 100.0, 4, "bob") for _ in range(3)]
    assert finishes(replay(jobs, machines, POLICIES["mlaas"], EXACT)) == [100.0, 100.0, 200.0]


@pytest.mark.parametrize("text", ["nodes: 3", "nodes: [{gpus: 1.5}]", "nodes: [{gpu: 8}]", "nodes: [{cpus: 8}]", ": ["])
def test_wrong_cluster_files_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        read_machines(write(tmp_path / "cluster.yaml", text))


def test_a_column_that_is_not_read_is_named(tmp_path: Path) -> None:
    trace = write(tmp_path / "t.csv", "submit_s,duration_s,num_gpus,priorty\n0,1,1,5\n")
    arguments = ["simulate", "--trace", str(trace), "--format", "csv", "--nodes", "1", "--gpus-per-node", "1"]
    done = CliRunner().invoke(app, [*arguments, "--policy", "sjf", "--json"])
    assert "column 'priorty' is not read, did you mean 'priority'?" in done.stderr
    assert json.loads(done.stdout)["policy"] == "sjf"


def test_the_command_prints_json_and_draws(tmp_path: Path) -> None:
    rows = "\n".join(f"{job.submit_s},{job.duration_s},{job.num_gpus},{job.tenant}" for job in synthetic(3, 60))
    trace = write(tmp_path / "t.csv", f"submit_s,duration_s,num_gpus,tenant\n{rows}\n")
    arguments = ["simulate", "--trace", str(trace), "--format", "csv", "--nodes", "2", "--gpus-per-node", "8"]
    picture = tmp_path / "timeline.png"
    done = CliRunner().invoke(app, [*arguments, "--policy", "mlaas", "--json", "--plot", str(picture)])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    keys = "policy avg_jct_s p50_jct_s p99_jct_s avg_wait_s makespan_s utilization preemptions lost_work_s"
    assert {*keys.split(), "worst_tenant_slowdown"} <= figures.keys()
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = CliRunner().invoke(app, [*arguments, "--policy", "sjf,mlaas"])
    assert "avg_jct_s" in table.stdout
