"""A scheduler for one holder, which does what a test tells it to and writes down what it is asked."""

from __future__ import annotations

import threading

from mlaas.errors import Conflict, PlatformError
from mlaas.scheduler.live.types import LeaseSignal, Outcome, Signal, Ticket, lease_id_of
from mlaas.scheduler.requests.spec import WorkloadSpec
from mlaas.scheduler.types import Gang, Placement, Resources

GANG = Gang(Resources(cpus=1), min_workers=1, max_workers=2)


class ScriptedScheduler:
    """Behaves as `HolderVerbs`; `place`, `tell` and `is_down` are the test's."""

    def __init__(self) -> None:
        self.is_down = False
        self.reason = "behind others"
        self.asked: list[str] = []
        self.given_back: list[tuple[str, Outcome, str]] = []
        self.handed_over: list[str] = []
        self.reports: list[tuple[float | None, float | None]] = []
        self._changed = threading.Condition()
        self._placement: Placement | None = None
        self._attempt = 0
        self._signal: LeaseSignal | None = None

    def place(self, *workers: tuple[str, int]) -> None:
        """Let the next `attach` have a gang."""
        with self._changed:
            self._placement = Placement(workers)
            self._changed.notify_all()

    def tell(self, signal: Signal, *, reason: str = "", within_s: float | None = None, size: int | None = None) -> None:
        """Signal the present lease."""
        with self._changed:
            assert self._signal is not None
            self._signal = LeaseSignal(
                lease_id=self._signal.lease_id,
                number=self._signal.number + 1,
                signal=signal,
                reason=reason,
                within_s=within_s,
                num_workers=size,
            )
            self._changed.notify_all()

    def attach(
        self, request: str | WorkloadSpec, *, tenant: str, holder: str, submission_id: str | None = None
    ) -> Ticket:
        """Grant what was placed, or say that it waits."""
        self._require_up()
        self.asked.append(request if isinstance(request, str) else f"spec {submission_id}")
        with self._changed:
            if self._placement is None:
                return self._ticket(None, None)
            placement, self._placement = self._placement, None
            self._attempt += 1
            lease_id = lease_id_of("w1", self._attempt)
            self._signal = LeaseSignal(lease_id=lease_id, number=0, signal=Signal.GO_ON)
            return self._ticket(lease_id, placement)

    def watch(self, lease_id: str, *, after: int = 0) -> LeaseSignal:
        """Answer a later signal, or soon."""
        self._require_up()
        with self._changed:
            self._changed.wait_for(lambda: self._signal is not None and self._signal.number > after, timeout=0.05)
            assert self._signal is not None
            if self._signal.lease_id != lease_id:
                return LeaseSignal(lease_id=lease_id, number=after + 1, signal=Signal.OVER)
            return self._signal

    def report(self, lease_id: str, *, done: float | None = None, left_s: float | None = None) -> None:
        """Write it down."""
        self._require_up()
        self.reports.append((done, left_s))

    def hand_over(self, lease_id: str) -> None:
        """Write it down."""
        self._require_up()
        self._require_lease(lease_id)
        self.handed_over.append(lease_id)

    def give_back(self, lease_id: str, outcome: Outcome, *, message: str = "") -> object:
        """Write it down."""
        self._require_up()
        self._require_lease(lease_id)
        self.given_back.append((lease_id, outcome, message))
        return None

    def placement_group(self, name: str) -> str:
        """Return its name."""
        return name

    def _ticket(self, lease_id: str | None, placement: Placement | None) -> Ticket:
        return Ticket(
            workload_id="w1",
            gang=GANG,
            lease_id=lease_id,
            placement=placement,
            reason="it fits" if lease_id else self.reason,
            yield_grace_s=60.0,
            attempt=self._attempt,
        )

    def _require_up(self) -> None:
        if self.is_down:
            raise PlatformError("scheduler_away", "the scheduler restarts", retry_after_s=1.0)

    def _require_lease(self, lease_id: str) -> None:
        if self._signal is None or self._signal.lease_id != lease_id or self._signal.signal is Signal.OVER:
            raise Conflict("lease_over", f"lease {lease_id} is over")
