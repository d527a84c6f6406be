"""Items of a response's earlier turns, as the target of the next turn may read them.

A conversation that the gateway rebuilds may have been answered by several providers. Each output item then names the
one that wrote it. Its writer gets the item back as it was. Anyone else gets what was said and which functions were
called, without the writer's own ids; reasoning, and what tools did at the writer's, only the writer can read.
"""

from __future__ import annotations

from typing import Any, Final

from mlaas.providers.sealed_thinking import PREFIX

ORIGIN: Final = "mlaas_origin"
"""Member of an item: the name of the provider that wrote it. It never leaves the gateway."""

_FOR_ALL: Final = ("message", "function_call")
_OWN: Final = (ORIGIN, "id", "status")


def carry_over(items: list[Any], *, reader: str | None) -> list[Any]:
    """Return the items that a reader may have; those without an origin are the caller's own and stay as they are.

    Args:
        items: of an input.
        reader: the provider that gets them. None: a chat, which has no items and so is nobody's own.
    """
    carried: list[Any] = []
    for item in items:
        if not isinstance(item, dict) or ORIGIN not in item:
            carried.append(item)
        elif item[ORIGIN] == reader:
            carried.append({name: value for name, value in item.items() if name != ORIGIN})
        elif item.get("type") in _FOR_ALL or is_sealed(item):
            carried.append({name: value for name, value in item.items() if name not in _OWN})
    return carried


def is_sealed(item: object) -> bool:
    """Whether an item is reasoning that another API's model signed and the gateway sealed."""
    text = item.get("encrypted_content") if isinstance(item, dict) else None
    return isinstance(text, str) and text.startswith(PREFIX)
