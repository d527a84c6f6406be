"""Which replica has seen the front of which prompt: a hash trie of prompt blocks, bounded.

A prompt is cut into blocks, and each block is named by a hash of itself and all before it, so one flat table is the
trie: a name stands for a whole path from the root. The least recently used names are forgotten, as the engine's own
cache forgets blocks.

Source: vLLM, docs/design/prefix_caching (blocks named by the hash of their tokens and the prefix before them).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

BLOCK_BYTES: Final = 512
"""About 128 tokens: eight of vLLM's blocks."""
BLOCK_TOKENS: Final = BLOCK_BYTES // 4
"""Tokens that a block counts for, at about four bytes each."""
_MAX_BLOCKS = 128
_PROMPT_FIELDS = ("tools", "system", "instructions", "messages", "prompt", "input")


def prompt_blocks(fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the names of a prompt's whole blocks, front first; at most 128, which are 64 KiB.

    Args:
        fields: a request of any of the gateway's APIs.
    """
    text = orjson.dumps([fields[name] for name in _PROMPT_FIELDS if name in fields])
    names: list[int] = []
    name = 0
    for start in range(0, min(len(text), BLOCK_BYTES * _MAX_BLOCKS) - BLOCK_BYTES + 1, BLOCK_BYTES):
        name = hash((name, text[start : start + BLOCK_BYTES]))
        names.append(name)
    return tuple(names)


class Prefixes:
    """What each replica has probably in its cache.

    Args:
        max_blocks: blocks that are remembered, over all replicas.
    """

    def __init__(self, *, max_blocks: int = 65_536) -> None:
        self._max_blocks = max_blocks
        self._owners: OrderedDict[int, set[str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._owners)

    def add(self, origin: str, blocks: Sequence[int]) -> None:
        """Remember that a replica was sent a prompt. Its front is used last, so that no path loses its root first."""
        for block in reversed(blocks):
            owners = self._owners.get(block)
            if owners is None:
                self._owners[block] = {origin}
            else:
                owners.add(origin)
                self._owners.move_to_end(block)
        while len(self._owners) > self._max_blocks:
            self._owners.popitem(last=False)

    def match(self, blocks: Sequence[int]) -> dict[str, int]:
        """Return how many tokens at the front of a prompt each replica has seen; those with none are left out."""
        found: dict[str, int] = {}
        for index, block in enumerate(blocks):
            owners = self._owners.get(block)
            holders = [] if owners is None else [each for each in owners if found.get(each, 0) == index]
            if not holders:
                break
            for origin in holders:
                found[origin] = index + 1
        return {origin: number * BLOCK_TOKENS for origin, number in found.items()}

    def forget(self, origins: Iterable[str]) -> None:
        """Drop replicas that have gone."""
        gone = set(origins)
        if not gone:
            return
        for block in [block for block, owners in self._owners.items() if owners & gone]:
            self._owners[block] -= gone
            if not self._owners[block]:
                del self._owners[block]
