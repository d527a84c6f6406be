"""The sources of an answer that searched the web, as the citations of Anthropic's text blocks.

Where a model names the passages that a source stands behind, these are cited; else its list of sources is.
Source: openai-python, `Annotation`; Perplexity's API reference, Sonar; Anthropic's Python SDK, `TextCitation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlaas.providers.messages_pass_through import ELSEWHERE


class Sources:
    """Gathers sources from a completion, or from the chunks of one."""

    __slots__ = ("_annotations", "_results", "_urls")

    def __init__(self) -> None:
        self._annotations: list[Any] = []
        self._results: list[Any] = []
        self._urls: list[Any] = []

    def read(self, completion: Mapping[str, Any], message: Mapping[str, Any]) -> None:
        """Take what a completion or chunk, and its message or delta, say of sources."""
        if found := message.get("annotations"):
            self._annotations += [each["url_citation"] for each in found if each.get("type") == "url_citation"]
        # Sonar repeats its lists in every chunk.
        if results := message.get("search_results") or completion.get("search_results"):
            self._results = [each for each in results if each.get("url")]
        if urls := completion.get("citations"):
            self._urls = urls

    def citations(self, text: str) -> list[dict[str, Any]]:
        """Return the citations of the text that was written."""
        if self._annotations:
            return [
                _citation(each.get("url"), each.get("title"), text[each.get("start_index") : each.get("end_index")])
                for each in self._annotations
            ]
        if self._results:
            return [_citation(each["url"], each.get("title"), each.get("snippet")) for each in self._results]
        return [_citation(url, None, None) for url in self._urls]


def _citation(url: Any, title: Any, text: Any) -> dict[str, Any]:
    return {
        "type": "web_search_result_location",
        "url": url,
        "title": title,
        "cited_text": text or "",
        "encrypted_index": ELSEWHERE,
    }
