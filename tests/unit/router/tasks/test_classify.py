"""The classifier of tasks, measured on labelled requests; half of them were not looked at when it was written."""

from __future__ import annotations

import importlib
import inspect
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets

from mlaas.router.tasks.classify import LONG_CONTEXT_CHARS, Task, classify

PROMPTS = yaml.safe_load(Path(__file__).with_name("task_prompts.yaml").read_text())
MIN_ACCURACY = 0.85
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def fill(text: str) -> str:
    return re.sub(r"\{(source|text):([\w.]+)\}", _filled, text)


def _filled(place: re.Match[str]) -> str:
    kind, name = place.groups()
    if kind == "text":
        return getattr(datasets, f"load_{name}")().DESCR
    try:
        return inspect.getsource(importlib.import_module(name))
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return inspect.getsource(getattr(importlib.import_module(module), attribute))


def request(item: Any) -> dict[str, Any]:
    item = {"prompt": item} if isinstance(item, str) else item
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": fill(item["prompt"])}]}
    if item.get("schema"):
        fields["response_format"] = SCHEMA
    if item.get("web_search"):
        fields["web_search_options"] = {}
    if "reasoning_effort" in item:
        fields["reasoning_effort"] = item["reasoning_effort"]
    return fields


def labelled(*, is_held_out: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    for label, items in PROMPTS.items():
        yield from ((label, request(item)) for number, item in enumerate(items) if (number % 2 == 1) is is_held_out)


@pytest.mark.parametrize("is_held_out", [False, True])
def test_most_requests_are_told_apart(is_held_out: bool) -> None:
    items = list(labelled(is_held_out=is_held_out))
    wrong = [f"{label} as {got}: {fields['messages'][0]['content'][:90]!r}"
             for label, fields in items if (got := classify(fields)) != label]  # fmt: skip
    print(f"accuracy {1 - len(wrong) / len(items):.3f} of {len(items)}", *wrong, sep="\n")
    assert 1 - len(wrong) / len(items) >= MIN_ACCURACY, "\n".join(wrong)


def test_the_labelled_set_is_large_enough() -> None:
    assert sum(map(len, PROMPTS.values())) >= 120
    assert set(PROMPTS) == set(Task)


def test_length_decides_wherever_it_stands() -> None:
    messages = [
        {"role": "system", "content": "x" * LONG_CONTEXT_CHARS},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {}}]},
    ]
    assert classify({"messages": messages}) is Task.LONG_CONTEXT
    assert classify({"messages": messages[1:]}) is Task.CHAT
    for name in ("system", "instructions"):
        assert classify({"messages": messages[1:], name: "x" * LONG_CONTEXT_CHARS}) is Task.LONG_CONTEXT


def test_only_the_last_question_counts() -> None:
    turns = ["Prove that 2 is prime, step by step.", "Thanks! Tell me a joke."]
    messages = [{"role": "user", "content": turn} for turn in turns]
    assert classify({"messages": messages}) is Task.CHAT


@pytest.mark.parametrize(
    "fields",
    [
        {"input": "Prove that 2 is prime."},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Prove that 2 is prime."}]}]},
        {"prompt": "Prove that 2 is prime."},
    ],
)
def test_other_apis_are_read_too(fields: dict[str, Any]) -> None:
    assert classify(fields) is Task.REASONING
    assert classify({"input": "hi", "text": {"format": SCHEMA}}) is Task.EXTRACTION
    assert classify({"prompt": [1, 2, 3]}) is Task.CHAT


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


@given(
    st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"])}, optional={"content": JSON}), max_size=3
    ),
    st.dictionaries(
        st.sampled_from(["response_format", "tools", "reasoning_effort"]), st.none() | st.just([1]) | st.text()
    ),
)
def test_any_request_has_a_task(messages: list[dict[str, Any]], rest: dict[str, Any]) -> None:
    assert classify({"messages": messages, **rest}) in Task


@pytest.mark.parametrize("text", ["a" * 2_000, " " * 2_000, "select " * 280, "list " * 400, "x=" * 1_000, "{;\n" * 660])
def test_no_text_makes_a_pattern_run_away(text: str) -> None:
    began_s = time.process_time()
    classify({"messages": [{"role": "user", "content": text}]})
    assert time.process_time() - began_s < 0.1
