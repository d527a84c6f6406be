"""Changing one member of a JSON text."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.splice import insert_member, rename_member, replace_model, set_member

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=8)
    | st.sampled_from(["model", '"model":', "}", ","]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "a", '"model"', "usage", "\\"]), inner, max_size=3)
    ),
    max_leaves=12,
)
members = st.dictionaries(st.sampled_from(["a", "b", "messages", "\u00e9"]), json_values, max_size=4)


def encode(value: object, is_ascii: bool, indent: int) -> bytes | None:
    body = json.dumps(value, ensure_ascii=is_ascii, indent=indent or None).encode("utf-8", "surrogatepass")
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return body


@given(
    members,
    json_values,
    st.text(min_size=1, max_size=10),
    st.text(min_size=1),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from(["", "long " * 2000, 'quoted "model": ' * 600]),
)
def test_the_model_is_replaced_and_nothing_else(before, after, old, new, is_ascii, indent, text):
    value = {**before, "text": text, "model": old, "z": after}
    body = encode(value, is_ascii, indent)
    if body is None or encode(new, True, 0) is None:
        return
    replaced = replace_model(body, new)
    assert json.loads(replaced) == {**value, "model": new}
    assert list(json.loads(replaced)) == list(value)


@given(members, json_values, json_values, st.booleans(), st.booleans(), st.integers(0, 2))
def test_a_member_is_set_and_nothing_else(before, old, new, is_there, is_ascii, indent):
    value = {"z": 1, **before, **({"model": old} if is_there else {}), "y": old}
    body, raw = encode(value, is_ascii, indent), encode(new, True, 0)
    if body is None or raw is None:
        return
    changed = set_member(body, "model", raw)
    assert json.loads(changed) == {**value, "model": new}
    if is_there:
        assert list(json.loads(changed)) == list(value)


@given(members, json_values, st.booleans(), st.integers(0, 2))
def test_a_member_is_renamed_and_nothing_else(before, old, is_ascii, indent):
    value = {**before, "model": old, "z": {"model": old}}
    body = encode(value, is_ascii, indent)
    if body is None:
        return
    renamed = json.loads(rename_member(body, "model", "new"))
    assert list(renamed.items()) == [("new" if name == "model" else name, each) for name, each in value.items()]


@given(members, json_values, st.booleans(), st.integers(0, 2))
def test_a_member_is_put_into_the_top_level_object_only(before, inner, is_ascii, indent):
    value = {**before, "a": {"usage": {"x": 1}}, "usage": {"tokens": inner}, "z": "usage"}
    body = encode(value, is_ascii, indent)
    if body is None:
        return
    changed = insert_member(body, "usage", "cost_usd", b"0.5")
    assert json.loads(changed) == {**value, "usage": {"cost_usd": 0.5, "tokens": inner}}


def test_a_member_that_is_no_object_stays():
    for body in (b'{"usage": null, "a": 1}', b'{"a": 1}', b'{"a": {"usage": {"b": 1}}}'):
        assert insert_member(body, "usage", "cost_usd", b"1") == body


def test_an_event_may_surround_the_object():
    event = b'event: x\r\ndata: {"choices":[],"usage":{"n":1}}\r\n\r\n'
    expected = b'event: x\r\ndata: {"choices":[],"usage":{"cost_usd":0.1,"n":1}}\r\n\r\n'
    assert insert_member(event, "usage", "cost_usd", b"0.1") == expected


def test_a_key_written_with_escapes_is_found():
    body = rb'{"a": {"model": "keep"}, "mod\u0065l" : "old", "n": 123456789012345678901234567890}'
    assert replace_model(body, "new") == body.replace(b'"old"', b'"new"')
    assert set_member(body, "model", b"1") == body.replace(b'"old"', b"1")


@pytest.mark.parametrize("text", [b"", b"long " * 2000])
@pytest.mark.parametrize("key", [b'"model"', rb'"mod\u0065l"', rb'"\u006d\u006f\u0064\u0065\u006C"'])
def test_a_key_that_comes_twice_is_replaced_twice(text, key):
    body = b'{"model":"a","text":"' + text + b'",' + key + b':"b"}'
    assert replace_model(body, "c") == body.replace(b'"a"', b'"c"').replace(b'"b"', b'"c"')


def test_a_string_that_reads_like_a_key_is_left_alone():
    body = rb'{"messages":[{"content":"\"model\": \"old\", \\"},{"model":"old"}],"model":"old"}'
    assert json.loads(replace_model(body, "new"))["messages"] == json.loads(body)["messages"]
