"""Which models are to be served: the record that the running cluster is made to match."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Engine, delete, select, update

from mlaas.errors import ConfigError, NotFound
from mlaas.store.engine import transaction, upsert
from mlaas.store.tables import deployments

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Source: RFC 1123, section 2.1, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One registered model version, to be served under a name.

    Raises:
        ConfigError: the name is not a DNS label, version or replicas is less than 1, or a bound cannot be.
    """

    name: str
    """Model name that clients of the gateway send."""
    model: str
    """Name of the registered model."""
    version: int
    """Version of the registered model, from 1."""
    replicas: int
    """Engines that serve it at the same time, from 1; of one that shares the cluster, the fewest."""
    created_at: datetime
    max_replicas: int | None = None
    """The most engines, as its load asks; None: always `replicas`."""
    ttft_slo_s: float | None = None
    """95th percentile of the time to the first token that callers are owed; more engines start when it is broken."""
    queue: str | None = None
    """Queue of the scheduler whose quota its engines use; None: the default one."""
    obstacle: str | None = None
    """Why the scheduler has no machines for the fewest of its engines; None: nothing is in the way that is known."""

    def __post_init__(self) -> None:
        if not _DNS_LABEL.fullmatch(self.name):
            message = f"name={self.name!r} is not a deployment name; use 1 to 63 of a-z, 0-9 and inner hyphens"
            raise ConfigError("bad_deployment_name", message)
        for field, value in (("version", self.version), ("replicas", self.replicas)):
            if value < 1:
                message = f"{field}={value} of deployment {self.name!r} is too small; give 1 or more"
                raise ConfigError(f"bad_{field}", message)
        self._check_share()

    @property
    def is_shared(self) -> bool:
        """Whether its engines come and go with its load, on machines that training uses as well."""
        return self.max_replicas is not None

    def _check_share(self) -> None:
        if self.max_replicas is None:
            if self.ttft_slo_s is not None or self.queue is not None:
                message = f"deployment {self.name!r} has a fixed number of replicas; give the most it may have as well"
                raise ConfigError("bad_max_replicas", message)
        elif self.max_replicas < self.replicas:
            message = f"max_replicas={self.max_replicas} of deployment {self.name!r} is below its {self.replicas}"
            raise ConfigError("bad_max_replicas", message)
        if self.ttft_slo_s is not None and not 0 < self.ttft_slo_s < float("inf"):
            message = f"ttft_slo_s={self.ttft_slo_s} of deployment {self.name!r} is not a finite number above 0"
            raise ConfigError("bad_ttft_slo_s", message)


class DeploymentRepository:
    """The deployments of the store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, deployment: Deployment) -> None:
        """Store the deployment in place of the one with its name, if there is one.

        Raises:
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            upsert(connection, deployments, asdict(deployment))

    def note_obstacle(self, deployment: Deployment, obstacle: str | None) -> None:
        """Store what is in the way of a deployment, unless another one has taken its place.

        Raises:
            PlatformError: the store cannot be reached.
        """
        is_same = (deployments.c.name == deployment.name) & (deployments.c.created_at == deployment.created_at)
        with transaction(self._engine) as connection:
            connection.execute(update(deployments).where(is_same).values(obstacle=obstacle))

    def delete(self, name: str) -> None:
        """Remove the deployment.

        Raises:
            NotFound: no deployment has this name.
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            found = connection.execute(delete(deployments).where(deployments.c.name == name)).rowcount
        if not found:
            raise self._not_found(name)

    def list(self) -> Sequence[Deployment]:
        """Return all deployments, by name.

        Raises:
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            rows = connection.execute(select(deployments).order_by(deployments.c.name)).all()
        return [Deployment(**row._mapping) for row in rows]

    def get(self, name: str) -> Deployment:
        """Return the deployment of this name.

        Raises:
            NotFound: no deployment has this name; the message lists those that exist.
            PlatformError: the store cannot be reached.
        """
        with transaction(self._engine) as connection:
            row = connection.execute(select(deployments).where(deployments.c.name == name)).one_or_none()
        if row is None:
            raise self._not_found(name)
        return Deployment(**row._mapping)

    def _not_found(self, name: str) -> NotFound:
        existing = ", ".join(deployment.name for deployment in self.list()) or "none"
        return NotFound("deployment_not_found", f"no deployment is named {name!r}; deployed: {existing}")
