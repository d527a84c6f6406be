"""An array as one thing: what was submitted under its id, and how its indexes stand together.

Each index is a workload of its own, and its document names that index alone: 10,000 rows with 10,000 indexes in each
would be a table of gigabytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlaas.scheduler.live.lifecycle import State
from mlaas.scheduler.requests.quantities import format_array

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlaas.store.workloads import WorkloadRecord

_TELLING = (State.RUNNING, State.YIELDING, State.STARTING, State.PENDING, State.FAILED, State.CANCELLED)
"""The state of an array is the first of these that an index is in; else all have succeeded."""


def index_document(document: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the document of one index of an array. Submitted again, it runs that index."""
    return {**document, "array": format_array((index,))}


def submitted_document(records: Sequence[WorkloadRecord]) -> dict[str, Any]:
    """Return the document that workloads were made of, given all of them in order of submission."""
    indexes = [record.array_index for record in records if record.array_index is not None]
    return {**records[0].spec, "array": format_array(indexes)} if indexes else records[0].spec


def array_record(records: Sequence[WorkloadRecord]) -> WorkloadRecord:
    """Return an array as a workload: its state and times are those of its indexes together.

    Args:
        records: all its indexes, in order of submission.
    """
    first = records[0]
    assert first.parent_id is not None
    states = Counter(State(record.state) for record in records)
    state = next((each for each in _TELLING if states[each]), State.SUCCEEDED)
    counted = ", ".join(f"{states[each]} {each.value}" for each in State if states[each])
    ended_at = [record.ended_at for record in records if record.ended_at is not None]
    return replace(
        first,
        id=first.parent_id,
        parent_id=None,
        array_index=None,
        spec=submitted_document(records),
        state=state.value,
        reason=f"array of {len(records)}: {counted}",
        attempt=max(record.attempt for record in records),
        num_failures=sum(record.num_failures for record in records),
        num_preemptions=sum(record.num_preemptions for record in records),
        not_before_at=None,
        started_at=min((record.started_at for record in records if record.started_at is not None), default=None),
        ended_at=max(ended_at) if len(ended_at) == len(records) else None,
        yield_by_at=None,
        placement=None,
        attained_s=sum(record.attained_s for record in records),
        exit_code=None,
    )


def first_to_explain(records: Iterable[WorkloadRecord]) -> WorkloadRecord:
    """Return the index of an array that says most about why it is not done: one that waits, runs or has failed."""
    order = (State.PENDING, *_TELLING, State.SUCCEEDED)
    return min(records, key=lambda record: order.index(State(record.state)))
