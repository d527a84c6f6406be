"""Answers kept for requests that mean the same, for the aliases that ask for it.

Only the wording of the last question may differ: tenant, alias, every other field, all messages before it and all
numbers in it must be equal, and only then are embeddings compared. An embedding hardly tells 17 from 71, and one of a
long system prompt hardly tells any two questions apart.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from mlaas.errors import MlaasError
from mlaas.providers.base import Call, Operation, ProviderFailed
from mlaas.router.caches.exact import MAX_ENTRY_BYTES, Cached, material_fields

EMBED_TIMEOUT_S: Final = 2.0
"""How long a request waits for the embedding of its question; then it goes past this cache."""
MAX_QUESTION_CHARS: Final = 8_000
"""Longer questions are not compared."""
_OPERATIONS = (Operation.CHAT, Operation.MESSAGES)
_MAX_GROUP = 1_000
_NUMBER = re.compile(r"\d+")


class Embed(Protocol):
    """Turns texts into vectors."""

    async def __call__(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return one vector for each text, all of one length.

        Raises:
            ProviderFailed: the model does not answer.
            MlaasError: the request is refused.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A request as it is compared.

    Attributes:
        group: SHA-256 of all that must be equal.
        text: what may be worded in another way.
    """

    group: bytes
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """What the cache knows about a question.

    Attributes:
        question: what was asked.
        vector: its embedding, of length one.
        hit: the answer to the question that is closest; None when none is close enough.
        similarity: cosine to that question; 0 without one.
    """

    question: Question
    vector: NDArray[np.float32]
    hit: Cached | None
    similarity: float


def question_of(call: Call, *, tenant: str, embedder: str) -> Question | None:
    """Return a request as it is compared; None when it ends with anything but a user's text.

    Args:
        call: the request.
        tenant: whose it is.
        embedder: name of the model that embeds; vectors of two models have nothing to do with each other.
    """
    messages = call.fields.get("messages")
    if call.operation not in _OPERATIONS or not messages or messages[-1].get("role") != "user":
        return None
    text = _plain_text(messages[-1].get("content"))
    if not text or len(text) > MAX_QUESTION_CHARS:
        return None
    rest = {name: value for name, value in messages[-1].items() if name != "content"}
    parts = [tenant, embedder, call.operation.value, call.model, sorted(call.headers.items())]
    fields = [(name, value) for name, value in material_fields(call) if name != "messages"]
    try:
        material = orjson.dumps([*parts, fields, messages[:-1], rest, _NUMBER.findall(text)])
    except orjson.JSONEncodeError:  # Nested deeper than the encoder goes.
        return None
    return Question(group=hashlib.sha256(material).digest(), text=text)


class SemanticCache:
    """Answers by the meaning of their questions, in this process's memory; the oldest go first.

    Args:
        max_bytes: of answers and vectors.
        max_entries: answers in all; a group of comparable questions holds at most 1,000.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        max_entries: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._groups: dict[bytes, dict[int, _Entry]] = {}
        self._next_id = 0
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def look_up(self, question: Question, *, threshold: float, embed: Embed) -> Lookup | None:
        """Embed a question and look for the closest one that has been answered.

        Args:
            question: what is asked.
            threshold: least cosine similarity of a hit.
            embed: the model that `question` names.

        Returns:
            What was found, to be given to `put` when it is no hit; None when the embedder does not answer in time, or
            with no vector of its length.
        """
        try:
            async with asyncio.timeout(EMBED_TIMEOUT_S):
                [values] = await embed([question.text])
            vector = np.asarray(values, dtype=np.float32)
        except (TimeoutError, ProviderFailed, MlaasError, ValueError):
            return None
        norm = float(np.linalg.norm(vector)) if vector.ndim == 1 else 0.0
        if not np.isfinite(norm) or norm == 0.0:
            return None
        vector /= norm
        entry, similarity = self._closest(question.group, vector)
        hit = entry.cached if entry is not None and similarity >= threshold else None
        return Lookup(question=question, vector=vector, hit=hit, similarity=similarity)

    def put(self, lookup: Lookup, cached: Cached, *, ttl_s: float) -> None:
        """Keep the answer to a question that was looked up, for `ttl_s` seconds."""
        num_bytes = len(cached.body) + lookup.vector.nbytes
        if len(cached.body) > MAX_ENTRY_BYTES or num_bytes > self._max_bytes:
            return
        group = self._groups.setdefault(lookup.question.group, {})
        if len(group) >= _MAX_GROUP:
            self._drop(next(iter(group)))
        entry = _Entry(
            group=lookup.question.group, vector=lookup.vector, cached=cached, expires_s=self._clock() + ttl_s
        )
        self._next_id += 1
        self._entries[self._next_id] = group[self._next_id] = entry
        self.num_bytes += num_bytes
        while self.num_bytes > self._max_bytes or len(self._entries) > self._max_entries:
            self._drop(next(iter(self._entries)))

    def _closest(self, group: bytes, vector: NDArray[np.float32]) -> tuple[_Entry | None, float]:
        now_s = self._clock()
        known = self._groups.get(group, {})
        for number in [number for number, entry in known.items() if entry.expires_s <= now_s]:
            self._drop(number)
        entries = [entry for entry in known.values() if entry.vector.shape == vector.shape]
        if not entries:
            return None, 0.0
        similarities = np.stack([entry.vector for entry in entries]) @ vector
        best = int(similarities.argmax())
        return entries[best], float(similarities[best])

    def _drop(self, number: int) -> None:
        entry = self._entries.pop(number)
        self.num_bytes -= len(entry.cached.body) + entry.vector.nbytes
        group = self._groups[entry.group]
        del group[number]
        if not group:
            del self._groups[entry.group]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    group: bytes
    vector: NDArray[np.float32]
    cached: Cached
    expires_s: float


def _plain_text(content: Any) -> str | None:
    """Return the text of a message that holds nothing else."""
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.keys() != {"type", "text"} or not isinstance(part["text"], str):
            return None
        texts.append(part["text"])
    return "\n".join(texts).strip()
