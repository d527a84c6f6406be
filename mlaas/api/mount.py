"""All routes of the control plane."""

from __future__ import annotations

from pathlib import Path

from mlaas.api.cluster_routes import ClusterRoutes
from mlaas.api.package_folder import PackageFolder
from mlaas.api.package_routes import PackageRoutes
from mlaas.api.ports import QueueSource, SchedulerPort
from mlaas.api.workload_routes import WorkloadRoutes
from mlaas.router.routes import Route


def control_routes(scheduler: SchedulerPort, *, queues: QueueSource, home: Path) -> tuple[Route, ...]:
    """Return the routes of the control plane.

    Args:
        scheduler: decides what runs.
        queues: keeps the queues that were applied.
        home: folder of the instance: logs and packages lie in it.
    """
    return (
        *WorkloadRoutes(scheduler=scheduler, home=home).routes(),
        *ClusterRoutes(scheduler=scheduler, queues=queues).routes(),
        *PackageRoutes(packages=PackageFolder(home=home)).routes(),
    )
