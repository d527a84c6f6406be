"""Whose thinking a block is: Anthropic's thinking blocks on their way to callers and back.

A thinking block is signed for the model that wrote it, so a tool loop must send it back unchanged, and no other model
may get it. Callers know nothing of that when a chat's next turn goes to another target. So each block that the gateway
translates, or that an alias answers with, goes out with its origin written before its signature (or, in a redacted
block, before its data):

    mlaas|<model>|<place among the message's blocks>|<signature>

Both fields are opaque to callers and come back as they went. On the way back the origin is taken off again: the model
that wrote the block gets the block at its old place, and every other model gets none of it. A model that signs nothing
leaves both its name and the signature empty, and nobody gets such a block back. A chat's block without an origin was
not written by way of this gateway, and nobody knows which model would take it: no model gets it. A caller who speaks
the Messages API has blocks without an origin from models that were asked by their own name; they go on as they are.

Source: Anthropic API reference, extended thinking (signatures are opaque, blocks go back unchanged).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mlaas.providers.claude_models import is_same_model

_MARK: Final = "mlaas|"
MARK_BYTES: Final = _MARK.encode()
"""Any request that holds a block with an origin has these bytes."""

_SEALS: Final = {"thinking": "signature", "redacted_thinking": "data"}


def mark_thinking(block: Mapping[str, Any], *, model: str, place: int) -> dict[str, Any]:
    """Return a thinking block with its origin written into it.

    Args:
        block: a `thinking` or `redacted_thinking` block as the model wrote it.
        model: the model's own name, without `|`.
        place: its index among the blocks of its message.
    """
    seal = _SEALS[block["type"]]
    return {**block, seal: f"{_MARK}{model}|{place}|{block.get(seal) or ''}"}


def unsigned_thinking(text: str) -> dict[str, Any]:
    """Return the thinking block of a model that signs nothing."""
    return {"type": "thinking", "thinking": text, "signature": f"{_MARK}|0|"}


def is_thinking(block: object) -> bool:
    """Return whether a content block is one of thinking."""
    return isinstance(block, dict) and block.get("type") in _SEALS


def is_marked(block: Mapping[str, Any]) -> bool:
    """Return whether a thinking block has an origin written into it."""
    return str(block.get(_SEALS[block["type"]])).startswith(_MARK)


def read_thinking(block: Mapping[str, Any], *, model: str) -> tuple[int, dict[str, Any]] | None:
    """Return a marked block's place and the block as `model` wrote it; None when it is not by `model`.

    Args:
        block: a `thinking` or `redacted_thinking` block.
        model: who is to get it; a model's dated snapshots are one model.
    """
    seal = _SEALS[block["type"]]
    if not is_marked(block):
        return None
    origin, _, rest = block[seal][len(_MARK) :].partition("|")
    place, _, signature = rest.partition("|")
    if not origin or not place.isdecimal() or not is_same_model(origin, model):
        return None
    return int(place), {**block, seal: signature}


def is_unsigned(block: Mapping[str, Any]) -> bool:
    """Return whether a block's model signs nothing: its text is all there is to it."""
    return block.get(_SEALS[block["type"]]) in (None, "", f"{_MARK}|0|")
