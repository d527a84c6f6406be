"""How long an answer may get, as its caller bounds it and as a budget does."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.base import Call, Operation
from mlaas.router.money.billing import cap_output
from mlaas.router.need import asked_output_tokens

BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
WRITTEN = (Operation.CHAT, Operation.COMPLETION, Operation.RESPONSES, Operation.MESSAGES)
READ_BY = {
    Operation.CHAT: ("max_completion_tokens", "max_tokens"),
    Operation.COMPLETION: ("max_tokens",),
    Operation.RESPONSES: ("max_output_tokens",),
    Operation.MESSAGES: ("max_tokens",),
}


def call_of(operation: Operation, **fields: Any) -> Call:
    return Call(operation=operation, model="m", is_stream=False, fields=fields, body=orjson.dumps(fields))


@pytest.mark.parametrize(
    ("operation", "fields", "tokens"),
    [
        (Operation.CHAT, {}, None),
        (Operation.CHAT, {"max_tokens": 5}, 5),
        (Operation.CHAT, {"max_tokens": 5, "max_completion_tokens": None}, 5),
        (Operation.CHAT, {"max_tokens": 500, "max_completion_tokens": 5}, 500),
        (Operation.CHAT, {"max_output_tokens": 1}, None),
        (Operation.CHAT, {"max_tokens": 5, "n": 3}, 15),
        (Operation.COMPLETION, {"max_tokens": 5, "n": 2, "best_of": 4}, 20),
        (Operation.RESPONSES, {"max_tokens": 1, "max_output_tokens": 7}, 7),
        (Operation.MESSAGES, {"max_tokens": 7, "max_completion_tokens": 1}, 7),
        (Operation.EMBEDDINGS, {"max_tokens": 7}, 0),
    ],
)
def test_only_what_the_api_reads_bounds_an_answer_and_the_longest_of_it_counts(
    operation: Operation, fields: dict[str, Any], tokens: int | None
) -> None:
    assert asked_output_tokens(call_of(operation, **fields)) == tokens


@given(
    operation=st.sampled_from(WRITTEN),
    given_bounds=st.dictionaries(st.sampled_from(BOUNDS), st.none() | st.integers(0, 10_000)),
    choices=st.integers(1, 5),
    best_of=st.integers(1, 5),
    budget=st.integers(25, 10_000),
)
def test_no_bound_that_a_target_may_read_is_over_what_the_budget_pays(
    operation: Operation, given_bounds: dict[str, int | None], choices: int, best_of: int, budget: int
) -> None:
    capped = cap_output(call_of(operation, n=choices, best_of=best_of, **given_bounds), budget)
    assert orjson.loads(capped.body) == capped.fields
    read = [capped.fields.get(name) for name in READ_BY[operation]]
    assert any(bound is not None for bound in read)
    assert all(bound * max(choices, best_of) <= budget for bound in read if bound is not None)
    asked = asked_output_tokens(capped)
    assert asked is not None
    assert asked <= budget
