"""What kind of task a request is: a cheap guess from its form and its words, without asking any model.

Each task gets points for what speaks for it; the most points win, and a request that nothing speaks for is a chat. The
words are those of English, German, French, Spanish, Italian, Russian, Chinese and Japanese that ask for the task, not
those that talk about its subject.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

LONG_CONTEXT_CHARS: Final = 60_000
"""About 15,000 tokens: from here on the length decides."""
_HEAD_CHARS = 1_000
_TAIL_CHARS = 400


class Task(StrEnum):
    """A kind of request that models differ in."""

    CODE = "code"
    CHAT = "chat"
    EXTRACTION = "extraction"
    REASONING = "reasoning"
    SEARCH = "search"
    LONG_CONTEXT = "long_context"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that ask for a task, and what finding any of them is worth.
_WORDS: Final = (
    (
        Task.CODE,
        2,
        _words(
            "python javascript typescript java rust golang kotlin swift haskell ruby php bash powershell sql html css "
            "react django fastapi pandas numpy docker dockerfile kubernetes terraform git regex api async callback "
            "dataframe docstring function refactor debug compile compiler code script algorithm component implement "
            "funktion methode programm fonction requête función funzione программу функцию функция код"
        ),
    ),
    (
        Task.EXTRACTION,
        4,
        _words(
            "extract parse entities extrahiere extrahieren extrais extraire extrayez extrae extraer extraiga estrai "
            "извлеки извлечь"
        ),
    ),
    (Task.EXTRACTION, 3, _words("json csv xml metadata sentiment")),
    (
        Task.REASONING,
        4,
        _words(
            "prove proof derive justify solve evaluate compute beweise beweis zeige löse berechne démontrez démontrer "
            "prouvez prouver résous résoudre demuestra calcula resuelve dimostra calcola докажи реши вычисли logic"
        ),
    ),
    (
        Task.REASONING,
        3,
        _words(
            "probability integral derivative eigenvalues matrix equation theorem induction variance sequence "
            "permutations older younger taller weighings puzzle wahrscheinlichkeit probabilité probabilidad"
        ),
    ),
    (
        Task.SEARCH,
        4,
        _words(
            "google online internet news up-to-date nachrichten nouvelles noticias notizie новости новостей sources"
        ),
    ),
    (
        Task.SEARCH,
        3,
        _words(
            "latest newest current currently recent recently yesterday trending today aktuell aktuelle aktuellen heute "
            "gestern dernières dernière aujourd'hui últimas última hoy ultime oggi сегодня последние"
        ),
    ),
    (Task.SEARCH, 2, _words("weather wetter météo clima погода released")),
)
# Phrases, also of languages that put no blanks between words.
_PHRASES: Final = (
    (Task.CODE, 4, ("```", "traceback (most", "stack trace", "=> {", ");\n", "#include", "async/await")),
    (Task.CODE, 3, ("c++", "c#", "unit test", "type hint", "linked list", "merge conflict", "time complexity")),
    (Task.CODE, 3, ("函数", "代码", "程序", "関数", "コード", "実装")),
    (
        Task.EXTRACTION,
        4,
        ("pull out", "key-value", "structured data", "fill in the fields", "the fields", "提取", "抽出"),
    ),
    (Task.EXTRACTION, 3, ("list the names", "list all", "table of all", "classify each", "mentioned in", "appear in")),
    (Task.REASONING, 4, ("step by step", "your reasoning", "explain your", "证明", "計算", "计算", "証明", "解いて")),
    (Task.REASONING, 3, ("how many", "how much does", "how long does it take", "limit of", "if all", "in total")),
    (Task.SEARCH, 4, ("search the web", "search for", "look up", "the links", "搜索", "検索", "新闻", "ニュース")),
    (Task.SEARCH, 3, ("right now", "at the moment", "this week", "next week", "今天", "最新", "今日")),
    (Task.SEARCH, 2, ("stock price", "exchange rate", "opening hours", "who won", "price of", "天气", "天気")),
)
# Shapes that neither says.
_SHAPES: Final = (
    (Task.CODE, 4, re.compile(r"^[ \t]*(?:def|class|import|from \w+ import|func|fn|const|public|private) \S", re.M)),
    (Task.CODE, 4, re.compile(r"\w(?:error|exception):|^select\b.{1,200}\bfrom\b|[;{}]$", re.M)),
    (Task.REASONING, 2, re.compile(r"\d ?[-+*/^×÷=] ?\(?\d|\b[a-z]\^\d|\b\d+x\b")),
)
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_ENOUGH = 2
_STRUCTURED_POINTS = 5
_SEARCH_TOOL_POINTS = 6
_EFFORT_POINTS = 4


def classify(fields: Mapping[str, Any]) -> Task:
    """Return the task that a chat request most likely asks for.

    Looks at the length of all messages, at the last message of the user (its first 1,000 and last 400 characters), and
    at the fields that ask for JSON, a web search or more reasoning.

    Args:
        fields: a request for chat completions, messages, responses or completions.
    """
    messages = _messages(fields)
    num_chars = sum(_num_chars(fields.get(name)) for name in ("system", "instructions"))
    if num_chars + sum(_num_chars(message.get("content")) for message in messages) >= LONG_CONTEXT_CHARS:
        return Task.LONG_CONTEXT
    points = _points_of_fields(fields)
    text = next((_text(each.get("content")) for each in reversed(messages) if each.get("role") == "user"), "")
    if len(text) > _HEAD_CHARS + _TAIL_CHARS:
        text = f"{text[:_HEAD_CHARS]}\n{text[-_TAIL_CHARS:]}"
    for task, worth in _signs(text.lower()):
        points[task] = points.get(task, 0) + worth
    best = max(points, key=lambda task: points[task], default=Task.CHAT)
    return best if points.get(best, 0) >= _ENOUGH else Task.CHAT


def _messages(fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    given = fields.get("messages") or fields.get("input") or fields.get("prompt")
    if isinstance(given, str):
        return ({"role": "user", "content": given},)
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else ()


def _signs(text: str) -> Iterator[tuple[Task, int]]:
    words = set(_WORD.findall(text))
    for task, worth, known in _WORDS:
        if not known.isdisjoint(words):
            yield task, worth
    for task, worth, phrases in _PHRASES:
        if any(phrase in text for phrase in phrases):
            yield task, worth
    for task, worth, shape in _SHAPES:
        if shape.search(text):
            yield task, worth


def _points_of_fields(fields: Mapping[str, Any]) -> dict[Task, int]:
    points: dict[Task, int] = {}
    text = fields.get("text")
    form = text.get("format") if isinstance(text, dict) else fields.get("response_format")
    if isinstance(form, dict) and form.get("type") in ("json_schema", "json_object"):
        points[Task.EXTRACTION] = _STRUCTURED_POINTS
    if fields.get("web_search_options") is not None or any(
        isinstance(tool, dict) and str(tool.get("type")).startswith("web_search") for tool in fields.get("tools") or ()
    ):
        points[Task.SEARCH] = _SEARCH_TOOL_POINTS
    if fields.get("reasoning_effort") in ("high", "xhigh", "max"):
        points[Task.REASONING] = _EFFORT_POINTS
    return points


def _num_chars(content: object) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(text) for text in _texts(content))


def _text(content: object) -> str:
    return content if isinstance(content, str) else "\n".join(_texts(content))


def _texts(content: object) -> list[str]:
    parts = content if isinstance(content, list) else ()
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
