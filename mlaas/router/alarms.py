"""Many timers of one length for the price of one of the event loop's.

Nearly every timer of a request is called off unused, and making and cancelling one of the loop's takes a request longer
than choosing its target. Timers that all wait equally long ring in the order in which they were set, so one of the
loop's serves them all, and each costs an entry of a dictionary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


class Alarms:
    """Calls back `delay_s` after each `set`, unless called off before. All of it runs in one event loop."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self._last = 0
        self._waiting: dict[int, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def set(self, ring: Callable[[], None]) -> int:
        """Have `ring` called once the delay is over, and return the number to call that off with."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self.delay_s
        self._last += 1
        self._waiting[self._last] = (due_s, ring)
        if self._timer is None:
            self._timer = loop.call_at(due_s, self._ring, loop)
        return self._last

    def call_off(self, number: int) -> None:
        """Let an alarm not ring; one that has rung stays as it is."""
        self._waiting.pop(number, None)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        while self._waiting:
            number = next(iter(self._waiting))
            due_s, ring = self._waiting[number]
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._ring, loop)
                return
            del self._waiting[number]
            ring()


class TimeLimit:
    """Cancels what its `with` block awaits once an alarm rings, and raises `TimeoutError`, as `asyncio.timeout` does.

    Args:
        alarms: of the length that the block may take.
    """

    __slots__ = ("_alarms", "_is_over", "_num_cancelled", "_number", "_task")

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._is_over = False

    def __enter__(self) -> None:
        """Set the alarm."""
        task = asyncio.current_task()
        assert task is not None, "a time limit is for what a task awaits"
        self._task = task
        self._num_cancelled = task.cancelling()
        self._number = self._alarms.set(self._ring)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Call the alarm off; when it was what cancelled the block, say so.

        Raises:
            TimeoutError: the block took too long.
        """
        self._alarms.call_off(self._number)
        if self._is_over and self._task.uncancel() <= self._num_cancelled and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _ring(self) -> None:
        self._is_over = True
        self._task.cancel()
