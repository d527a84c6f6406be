"""Items of a streamed response while they are being written: each returns the events that a piece of it makes.

What has come is kept in pieces and joined when a part ends, so that a long answer costs no more for each piece than a
short one.

Source: openai-python, `ResponseStreamEvent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlaas.providers.sealed_thinking import seal_thinking
from mlaas.router.dialects.responses_answer import encode_call, encode_reasoning, new_id

Event = dict[str, Any]


class OpenReasoning:
    """A reasoning item: its text is its summary.

    Attributes:
        item: as it is announced, and whole once it is closed.
    """

    def __init__(self, index: int) -> None:
        self.item: dict[str, Any] = encode_reasoning("", [])
        self._place = {"item_id": self.item["id"], "output_index": index, "summary_index": 0}
        self._pieces: list[str] = []
        self._blocks: list[Any] = []

    def add(self, text: str, blocks: list[Any]) -> list[Event]:
        """Take a piece of reasoning and what came signed of it."""
        self._blocks += blocks
        if not text:
            return []
        events: list[Event] = []
        if not self._pieces:
            part = {"type": "summary_text", "text": ""}
            events.append({"type": "response.reasoning_summary_part.added", **self._place, "part": part})
        self._pieces.append(text)
        return [*events, {"type": "response.reasoning_summary_text.delta", **self._place, "delta": text}]

    def close(self, *, status: str) -> list[Event]:
        """Return the events that end its text; reasoning is whole, whatever its `status`."""
        self.item["encrypted_content"] = seal_thinking(self._blocks) if self._blocks else None
        if not self._pieces:
            return []
        part = {"type": "summary_text", "text": "".join(self._pieces)}
        self.item["summary"] = [part]
        return [
            {"type": "response.reasoning_summary_text.done", **self._place, "text": part["text"]},
            {"type": "response.reasoning_summary_part.done", **self._place, "part": part},
        ]


class OpenMessage:
    """A message: parts of text and of refusal.

    Attributes:
        item: as it is announced, and whole once it is closed.
    """

    def __init__(self, index: int) -> None:
        self.item: dict[str, Any] = {
            "id": new_id("msg"),
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        self._place = {"item_id": self.item["id"], "output_index": index, "content_index": -1}
        self._pieces: list[str] = []

    def add(self, kind: str, text: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        """Take a piece of a part, `output_text` or `refusal`."""
        content, events = self.item["content"], []
        if not content or content[-1]["type"] != kind:
            events = self._close_part()
            part = {"refusal": ""} if kind == "refusal" else {"text": "", "annotations": [], "logprobs": []}
            self._place = {**self._place, "content_index": len(content)}
            events.append({"type": "response.content_part.added", **self._place, "part": {"type": kind, **part}})
            content.append({"type": kind, **{name: value[:0] for name, value in part.items()}})
        self._pieces.append(text)
        if kind == "refusal":
            return [*events, {"type": "response.refusal.delta", **self._place, "delta": text}]
        content[-1]["logprobs"] += logprobs
        delta = {"type": "response.output_text.delta", **self._place, "delta": text, "logprobs": logprobs}
        return [*events, delta]

    def cite(self, annotations: list[dict[str, Any]]) -> list[Event]:
        """Take citations of the text so far."""
        known = self.item["content"][-1].get("annotations")
        if known is None:
            return []
        first = len(known)
        known += annotations
        return [
            {
                "type": "response.output_text.annotation.added",
                **self._place,
                "annotation_index": index,
                "annotation": annotation,
            }
            for index, annotation in enumerate(annotations, first)
        ]

    def close(self, *, status: str) -> list[Event]:
        """Return the events that end its last part."""
        self.item["status"] = status
        return self._close_part()

    def _close_part(self) -> list[Event]:
        if not self.item["content"]:
            return []
        part, text = self.item["content"][-1], "".join(self._pieces)
        self._pieces = []
        done = {"type": "response.content_part.done", **self._place, "part": part}
        if part["type"] == "refusal":
            part["refusal"] = text
            return [{"type": "response.refusal.done", **self._place, "refusal": text}, done]
        part["text"] = text
        said = {"type": "response.output_text.done", **self._place, "text": text, "logprobs": part["logprobs"]}
        return [said, done]


class OpenCall:
    """A call of a function.

    Attributes:
        item: as it is announced, and whole once it is closed.
    """

    def __init__(self, index: int, call: Mapping[str, Any]) -> None:
        self.item = encode_call(call, arguments="", status="in_progress")
        self._place = {"item_id": self.item["id"], "output_index": index}
        self._pieces: list[str] = []

    def add(self, arguments: str) -> list[Event]:
        """Take a piece of its arguments."""
        self._pieces.append(arguments)
        return [{"type": "response.function_call_arguments.delta", **self._place, "delta": arguments}]

    def close(self, *, status: str) -> list[Event]:
        """Return the events that end its arguments."""
        self.item |= {"status": status, "arguments": "".join(self._pieces)}
        done = {"type": "response.function_call_arguments.done", **self._place}
        return [{**done, "arguments": self.item["arguments"]}]
