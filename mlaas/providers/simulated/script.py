"""What the simulator answers: a pure function of the seed, the prompt and the options."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlaas.providers.simulated.directive import Options

_WORDS = (
    *("the", "cluster", "keeps", "one", "queue", "and", "each", "job", "has", "a", "place", "while", "router", "sends"),
    *("every", "prompt", "where", "it", "is", "answered", "soonest", "for", "least", "money", "then", "says", "why"),
)
_PIECE_CHARS = 8
_MAX_PARALLEL_CALLS = 2


class BadRequest(Exception):
    """The request is one that the vendor would refuse with 400."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A request, whatever format it came in.

    Attributes:
        texts: every text in it, in order.
        tools: JSON schema of each function's arguments, by name.
        tool_choice: `auto`, `none`, `required`, or a function's name.
        is_parallel: whether several calls at once are welcome.
        schema: JSON schema that the answer must keep to.
        is_reasoning: whether reasoning is asked for.
        is_answering_tools: whether the last turn brings results of tools.
        max_tokens: bound on the answer.
        stop: texts that end the answer.
        num_choices: answers to give.
    """

    texts: Sequence[str]
    tools: Mapping[str, Mapping[str, Any]]
    tool_choice: str = "auto"
    is_parallel: bool = True
    schema: Mapping[str, Any] | None = None
    is_reasoning: bool = False
    is_answering_tools: bool = False
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    num_choices: int = 1


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call of a function.

    Attributes:
        id: made from its place and the prompt.
        name: the function's.
        pieces: its arguments, a JSON object, as a stream carries them.
    """

    id: str
    name: str
    pieces: Sequence[str]

    @property
    def arguments(self) -> str:
        """The JSON object."""
        return "".join(self.pieces)


@dataclass(frozen=True, kw_only=True)
class Script:
    """One answer.

    Attributes:
        id: made from the seed and the prompt.
        reasoning: its pieces.
        pieces: of text.
        calls: of functions.
        finish: why the answer ends.
        input_tokens: of the whole prompt, cached ones included.
        cache_read_tokens: those of them read from the cache.
        cache_write_tokens: those of them written to the cache.
        output_tokens: pieces of all kinds, of all choices.
        reasoning_tokens: those of them that are reasoning.
        has_usage: whether the answer states its usage.
    """

    id: str
    reasoning: Sequence[str]
    pieces: Sequence[str]
    calls: Sequence[ToolCall]
    finish: Literal["stop", "length", "tool_calls"]
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    has_usage: bool = True

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


def count_tokens(texts: Sequence[str]) -> int:
    """Return the tokens of a prompt: one for every four bytes of each text."""
    return sum(-(-len(text.encode()) // 4) for text in texts)


def write_script(prompt: Prompt, options: Options, *, seed: int) -> Script:
    """Return the answer to a prompt."""
    digest = _digest(prompt.texts, seed)
    words = random.Random(digest)
    reasoning = _write_words(words, options.reasoning) if prompt.is_reasoning else []
    calls = _write_calls(prompt, digest)
    pieces: list[str] = []
    if prompt.schema is not None and not calls:
        pieces = _cut(json.dumps(sample(prompt.schema)))
    elif not calls:
        pieces = _write_words(words, options.tokens)
    pieces, is_cut = _end(pieces, prompt)
    output = len(reasoning) + len(pieces) + sum(len(call.pieces) for call in calls)
    num_input = max(1, count_tokens(prompt.texts))
    read = min(options.cached, num_input)
    return Script(
        id=digest,
        reasoning=reasoning,
        pieces=pieces,
        calls=calls,
        finish="tool_calls" if calls else "length" if is_cut else "stop",
        input_tokens=num_input,
        cache_read_tokens=read,
        cache_write_tokens=min(options.written, num_input - read),
        output_tokens=output * prompt.num_choices,
        reasoning_tokens=len(reasoning) * prompt.num_choices,
    )


def sample(schema: Mapping[str, Any]) -> Any:
    """Return the simplest value that a JSON schema allows; `$ref` and combinations are read as an empty object."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "string":
            return "word"
        case "integer":
            return int(schema.get("minimum", 1))
        case "number":
            return float(schema.get("minimum", 1.5))
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            return [sample(schema.get("items") or {"type": "string"})]
    return {name: sample(each) for name, each in (schema.get("properties") or {}).items()}


def _digest(texts: Sequence[str], seed: int) -> str:
    found = hashlib.sha256(str(seed).encode())
    for text in texts:
        found.update(b"\0")
        found.update(text.encode())
    return found.hexdigest()[:24]


def _write_words(words: random.Random, count: int) -> list[str]:
    return [f"{' ' if index else ''}{words.choice(_WORDS)}" for index in range(count)]


def _cut(text: str) -> list[str]:
    return [text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS)]


def _write_calls(prompt: Prompt, digest: str) -> list[ToolCall]:
    if not prompt.tools or prompt.tool_choice == "none" or prompt.is_answering_tools:
        return []
    names = list(prompt.tools)[: _MAX_PARALLEL_CALLS if prompt.is_parallel else 1]
    if prompt.tool_choice in prompt.tools:
        names = [prompt.tool_choice]
    return [
        ToolCall(id=f"call_{digest}{index}", name=name, pieces=_cut(json.dumps(sample(prompt.tools[name]))))
        for index, name in enumerate(names)
    ]


def _end(pieces: list[str], prompt: Prompt) -> tuple[list[str], bool]:
    """Cut an answer at its first stop text or at its longest length; the latter is told."""
    text = "".join(pieces)
    ends = [text.index(stop) for stop in prompt.stop if stop in text]
    if ends:
        kept, room = [], min(ends)
        for piece in pieces:
            kept.append(piece[:room])
            room -= len(piece)
            if room <= 0:
                break
        pieces = [piece for piece in kept if piece]
    if prompt.max_tokens is None or len(pieces) <= prompt.max_tokens:
        return pieces, False
    return pieces[: prompt.max_tokens], True
