"""`mlaas simulate`: a job trace replayed through the scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlaas.cli.instance import AsJson
from mlaas.errors import ConfigError

if TYPE_CHECKING:
    from mlaas.scheduler.simulate.machines import Machines
    from mlaas.scheduler.simulate.report import Report


def simulate(
    trace: Annotated[Path, typer.Option(help="File with the jobs.")],
    trace_format: Annotated[str, typer.Option("--format", help="philly, swf or csv.")] = "csv",
    nodes: Annotated[int | None, typer.Option(help="Number of equal nodes.")] = None,
    gpus_per_node: Annotated[int, typer.Option(help="GPUs of each of them.")] = 8,
    cluster: Annotated[
        Path | None, typer.Option(help="YAML file with node groups and queues, instead of --nodes.")
    ] = None,
    policy: Annotated[
        str, typer.Option(help="fifo, easy, sjf, las, fair, srsf-oracle or mlaas; several, with commas, are compared.")
    ] = "mlaas",
    estimate_error: Annotated[
        float,
        typer.Option(help="Runtimes without an estimate are estimated off by this log-normal factor; 1 = exactly."),
    ] = 3.0,
    restart_cost_s: Annotated[
        float, typer.Option(help="Seconds that each preemption costs on all GPUs of the job.")
    ] = 60.0,
    seed: Annotated[int, typer.Option(help="Of the estimates' errors.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write the timeline to this PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a job trace: what completion times, waits, utilisation and fairness a policy would give on a cluster."""
    from mlaas.cli.output import errors, print_json
    from mlaas.scheduler.decision.ordering import policy_named
    from mlaas.scheduler.simulate.replay import Terms, replay
    from mlaas.scheduler.simulate.report import figures, summarize
    from mlaas.scheduler.simulate.traces import read_trace, unread_columns

    policies = [policy_named(name.strip()) for name in policy.split(",")]
    terms = Terms(estimate_error=estimate_error, restart_cost_s=restart_cost_s, seed=seed)
    jobs = read_trace(trace, trace_format=trace_format)
    if trace_format == "csv":
        for column, question in unread_columns(trace).items():
            errors.print(f"column {column!r} is not read{question}", markup=False)
    machines = _machines(cluster, nodes=nodes, gpus_per_node=gpus_per_node)
    outcomes = [replay(jobs, machines, policy, terms) for policy in policies]
    reports = [summarize(outcome) for outcome in outcomes]
    for fate in [fate for fate in outcomes[0].fates if fate.refusal][:5]:
        errors.print(f"refused: {fate.refusal}", markup=False)
    if plot is not None:
        from mlaas.scheduler.simulate.plot import draw_timeline

        draw_timeline(outcomes, plot)
    if as_json:
        rows = [figures(report) for report in reports]
        print_json(rows[0] if len(rows) == 1 else rows)
    else:
        _show(reports)


def _machines(cluster: Path | None, *, nodes: int | None, gpus_per_node: int) -> Machines:
    from mlaas.scheduler.simulate.machines import equal_nodes, read_machines

    if (cluster is None) == (nodes is None):
        raise ConfigError("cluster_size", "give either --nodes, with --gpus-per-node, or --cluster FILE")
    if cluster is not None:
        return read_machines(cluster)
    return equal_nodes(num_nodes=nodes or 0, gpus_per_node=gpus_per_node)


def _show(reports: list[Report]) -> None:
    from rich.table import Table

    from mlaas.cli.output import console
    from mlaas.scheduler.simulate.report import figures

    table = Table("", *(report.policy for report in reports))
    columns = [
        {key: value for key, value in figures(report).items() if key not in ("policy", "tenants")} for report in reports
    ]
    for key in columns[0]:
        table.add_row(key, *(_text(column[key]) for column in columns))
    console.print(table)
    tenants = Table("tenant", "jobs", *(f"slowdown {report.policy}" for report in reports))
    for number, tenant in enumerate(reports[0].tenants):
        tenants.add_row(
            tenant.tenant, str(tenant.jobs), *(f"{report.tenants[number].slowdown:,.1f}" for report in reports)
        )
    console.print(tenants)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if 0.0 < abs(value) < 10.0 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
