"""What a holder of a gang asks of the scheduler. `mlaas.scheduler.on_ray.client` is the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mlaas.scheduler.live.types import LeaseSignal, Outcome, Ticket
    from mlaas.scheduler.requests.spec import WorkloadSpec


class HolderVerbs(Protocol):
    """The verbs of `live.service.SchedulerService` for holders, as blocking calls that any thread may make.

    Each raises `PlatformError` while the scheduler does not answer, and with code `no_scheduler` where there is none.
    """

    def attach(
        self, request: str | WorkloadSpec, *, tenant: str, holder: str, submission_id: str | None = None
    ) -> Ticket:
        """Ask for a gang, or for one's turn."""
        ...

    def watch(self, lease_id: str, *, after: int = 0) -> LeaseSignal:
        """Wait for a later signal; say that the holder lives."""
        ...

    def report(self, lease_id: str, *, done: float | None = None, left_s: float | None = None) -> None:
        """Say how far the run is."""
        ...

    def hand_over(self, lease_id: str) -> None:
        """Remove the placement group and keep the booking."""
        ...

    def give_back(self, lease_id: str, outcome: Outcome, *, message: str = "") -> object:
        """End the lease."""
        ...

    def placement_group(self, name: str) -> Any:
        """Return Ray's handle of a placement group of the scheduler."""
        ...
