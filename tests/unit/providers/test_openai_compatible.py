"""Passing a request through."""

from __future__ import annotations

import json

import orjson
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.openai_compatible import replace_model

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=8)
    | st.sampled_from(["model", '"model":']),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "a", '"model"', "messages", "\\"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "messages", "\u00e9"]), json_values, max_size=4),
    json_values,
    st.text(min_size=1, max_size=10),
    st.text(min_size=1, max_size=10),
    st.booleans(),
    st.integers(0, 2),
)
def test_the_model_is_replaced_and_nothing_else(before, after, old, new, is_ascii, indent):
    value = {**before, "model": old, "z": after}
    body = json.dumps(value, ensure_ascii=is_ascii, indent=indent or None).encode("utf-8", "surrogatepass")
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    replaced = replace_model(body, new)
    assert json.loads(replaced) == {**value, "model": new}
    assert list(json.loads(replaced)) == list(value)


def test_a_key_written_with_escapes_is_found():
    body = rb'{"a": {"model": "keep"}, "mod\u0065l" : "old", "n": 123456789012345678901234567890}'
    assert replace_model(body, "new") == body.replace(b'"old"', b'"new"')


def test_a_key_that_comes_twice_is_replaced_twice():
    assert replace_model(b'{"model":"a","model":"b"}', "c") == b'{"model":"c","model":"c"}'


def test_a_string_that_reads_like_a_key_is_left_alone():
    body = rb'{"messages":[{"content":"\"model\": \"old\", \\"},{"model":"old"}],"model":"old"}'
    assert json.loads(replace_model(body, "new"))["messages"] == json.loads(body)["messages"]
