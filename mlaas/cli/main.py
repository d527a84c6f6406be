"""The `mlaas` command: parse, call the library, print.

Commands import what they need when they run, so that `mlaas --help` loads neither Ray nor torch and answers at once.
"""

from __future__ import annotations

import logging
import sys

import typer

from mlaas.cli import (
    batches,
    bench_models,
    chat,
    demo,
    gateway,
    instance,
    jobs,
    keys,
    models,
    queues,
    route,
    simulate,
    submit,
    top,
    usage,
    workloads,
)
from mlaas.cli.workload_flags import RestCommand
from mlaas.errors import MlaasError

app = typer.Typer(
    name="mlaas",
    help="One Ray cluster, one scheduler, one API for machine learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(instance.up)
app.command()(instance.down)
app.command()(gateway.gateway)
app.command()(instance.status)
app.command()(instance.doctor)
app.command(cls=RestCommand, context_settings={"ignore_unknown_options": True})(submit.submit)
app.command()(workloads.plan)
app.command()(workloads.queue)
app.command()(workloads.explain)
app.command()(workloads.events)
app.command()(workloads.cancel)
app.command()(jobs.logs)
app.command()(top.top)
app.command()(queues.apply)
app.command(name="jobs")(jobs.list_jobs)
app.command(name="models")(models.list_models)
app.command()(models.deploy)
app.command()(models.undeploy)
app.command()(chat.chat)
app.command()(simulate.simulate)
app.add_typer(keys.app)
app.add_typer(route.app)
app.command()(usage.usage)
app.add_typer(batches.app)
app.command(name="bench-models")(bench_models.bench_models)
app.command()(demo.demo)


def main() -> None:
    """Run the command line. A failure prints its message and exits with status 1."""
    logging.disable(logging.WARNING)  # The libraries' chatter; what a user must know comes as an error.
    try:
        app()
    except MlaasError as error:
        from mlaas.cli.output import errors

        errors.print(f"[red]error[/red] \\[{error.code}] ", end="")
        errors.print(error.message, markup=False)
        sys.exit(1)
