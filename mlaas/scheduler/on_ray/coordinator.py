"""Ray Train and Ray Data ask the autoscaler for what they use; here they are heard, and nothing is asked.

Their requests go through one actor, which would put them into the autoscaler's one slot every 20 seconds, over what the
scheduler has published there. What they use is booked with the scheduler already.
"""

from __future__ import annotations

import ray
from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as coordinator

_NAME = "AutoscalingCoordinator"
"""Of the actor and of its namespace, as Ray looks it up."""


def take_coordinators_place() -> None:
    """Be Ray's coordinator of autoscaling requests before Ray makes it; one that is there stays.

    For a driver that is about to use Ray Train or Ray Data.

    Raises:
        RayError: the cluster does not answer.
    """
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(coordinator._AutoscalingCoordinatorActor)
    options = {"name": _NAME, "namespace": _NAME, "get_if_exists": True, "lifetime": "detached"}
    actor.options(**options).remote(send_resources_request=_keep_silent)


def _keep_silent(bundles: list[dict[str, float]], label_selectors: list[dict[str, str]] | None = None) -> None:
    """Ask for nothing."""
