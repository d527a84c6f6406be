"""A decision as data: written with its snapshot, read again, and made again."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from mlaas.router.choice.decide import decide
from mlaas.router.choice.frozen import decode, encode, from_tree
from mlaas.router.types import Decision, Snapshot


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One decision in a log.

    Attributes:
        snapshot: all that it depended on.
        decision: what came of it; None where only the snapshot was kept.
    """

    snapshot: Snapshot
    decision: Decision | None = None


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


def find_logged(line: bytes | str) -> Logged | None:
    """Return the decision in a line: one alone, a snapshot alone, a row of the journal, or what `explain` has told.

    Returns:
        None for a row of a request that had no choice.

    Raises:
        ValueError: the line is none of these.
    """
    tree = orjson.loads(line)
    if not isinstance(tree, dict):
        raise ValueError("it is no JSON object")
    if "candidates" in tree and "route" in tree:
        return Logged(snapshot=from_tree(Snapshot, tree))
    found = tree.get("snapshot")
    if isinstance(found, str):
        return Logged(snapshot=snapshot_from_json(found))
    if found is not None:
        return from_tree(Logged, tree)
    if "decision" not in tree:
        raise ValueError("it has neither a snapshot nor a decision")
    return None if tree["decision"] is None else from_tree(Logged, tree["decision"])


def replay(line: bytes | str) -> Decision:
    """Return the decision that this code makes of a logged one.

    Raises:
        ValueError: the line holds none.
    """
    logged = find_logged(line)
    if logged is None:
        raise ValueError("the request had no choice")
    return decide(logged.snapshot)
