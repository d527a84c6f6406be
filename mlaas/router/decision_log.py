"""A decision as data: written with its snapshot, read again, and made again."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from mlaas.router.decide import decide
from mlaas.router.frozen import decode, encode
from mlaas.router.types import Decision, Snapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class Logged:
    """One decision in a log.

    Attributes:
        snapshot: all that it depended on.
        decision: what came of it.
    """

    snapshot: Snapshot
    decision: Decision


def decision_to_json(snapshot: Snapshot, decision: Decision) -> bytes:
    """Return a decision and its snapshot as one line of JSON."""
    return encode(Logged(snapshot=snapshot, decision=decision))


def decision_from_json(line: bytes | str) -> Logged:
    """Return what `decision_to_json` wrote.

    Raises:
        ValueError: the line is not such a decision.
    """
    return decode(Logged, line)


def snapshot_to_json(snapshot: Snapshot) -> bytes:
    """Return a snapshot as one line of JSON; reading it gives an equal one."""
    return encode(snapshot)


def snapshot_from_json(line: bytes | str) -> Snapshot:
    """Return the snapshot that `snapshot_to_json` wrote.

    Raises:
        ValueError: the line is not a snapshot.
    """
    return decode(Snapshot, line)


def replay(line: bytes | str) -> Decision:
    """Return the decision that this code makes of a logged snapshot, alone or with its decision.

    Raises:
        ValueError: the line is neither.
    """
    tree = orjson.loads(line)
    is_logged = isinstance(tree, dict) and "snapshot" in tree
    return decide(decision_from_json(line).snapshot if is_logged else snapshot_from_json(line))
