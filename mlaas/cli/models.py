"""`mlaas models`, `deploy`, `undeploy`: registered models and what serves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlaas.cli.instance import AsJson
from mlaas.settings import load_settings

if TYPE_CHECKING:
    from mlaas.serving.applications import ApplicationStatus
    from mlaas.store.deployments import Deployment


def list_models(as_json: AsJson = False) -> None:
    """List the registered models, their versions, and what is deployed."""
    from mlaas.cli.output import show_rows
    from mlaas.platform.serve import deployment_statuses
    from mlaas.tracking.registry import Registry

    settings = load_settings()
    deployed = {(d.model, d.version): (d, status) for d, status in deployment_statuses(settings)}
    rows = []
    for model in Registry(settings.tracking_uri).list():
        deployment, status = deployed.get((model.name, model.version), (None, None))
        rows.append(
            {
                "model": model.name,
                "version": model.version,
                "aliases": list(model.aliases),
                "replicas": _replicas(deployment, status) if deployment and status else 0,
                "status": ": ".join(filter(None, (status.state, status.reason))) if status else "registered",
                "run": model.run_id,
            }
        )
    show_rows(rows, as_json=as_json, empty="no models yet; `mlaas submit jobs/train_lm.py --recipe ...` trains one")


def _replicas(deployment: Deployment, status: ApplicationStatus) -> int | str:
    if deployment.is_shared:
        return f"{status.num_running} of {deployment.replicas}-{deployment.max_replicas}"
    return deployment.replicas


def deploy(
    name: Annotated[str, typer.Argument(help="Registered model; clients of the gateway send this name.")],
    version: Annotated[
        int | None, typer.Option(help="Version to serve. Default: the one with the alias champion, or the newest.")
    ] = None,
    replicas: Annotated[
        int, typer.Option("--replicas", "--min-replicas", help="Engines that serve it at the same time.")
    ] = 1,
    max_replicas: Annotated[
        int | None,
        typer.Option(help="The most engines that its load may ask for: training makes room for them, and grows back."),
    ] = None,
    slo_ttft: Annotated[
        float | None,
        typer.Option(help="Seconds to the first token, at the 95th percentile, beyond which more engines start."),
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Whose quota its engines use. Default: the default queue.")] = None,
) -> None:
    """Serve a registered model with vLLM, and return once it answers. An earlier version serves until then."""
    from mlaas.cli.output import console
    from mlaas.platform.serve import deploy as start

    settings = load_settings()

    def progress(reason: str) -> None:
        console.print(f"  {reason}", markup=False)

    done = start(
        settings, name, version=version, replicas=replicas, max_replicas=max_replicas, ttft_slo_s=slo_ttft,
        queue=queue, progress=progress,
    )  # fmt: skip
    console.print(f"[green]✓[/green] {done.name} v{done.version} x{done.replicas} answers at {settings.gateway_url}/v1")


def undeploy(name: Annotated[str, typer.Argument(help="Name of the deployment.")]) -> None:
    """Stop serving a model. It stays registered."""
    from mlaas.cli.output import console
    from mlaas.platform.serve import undeploy as stop

    stop(load_settings(), name)
    console.print(f"{name} is no longer served", markup=False)
