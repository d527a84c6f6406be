"""Bodies and parameters: what is read, and what is refused with its reason."""

from __future__ import annotations

import json

import pytest

from mlaas.api.bodies import (
    MAX_WORKLOADS,
    MAX_YAML_BYTES,
    check_parameters,
    parse_number,
    parse_switch,
    parse_workloads,
)
from mlaas.errors import ConfigError, InvalidRequest, MlaasError


def test_json_and_yaml_say_the_same():
    fields = {"name": "a", "workers": "2..8", "gpus": 0.5, "preemptible": False, "estimate": "2h"}
    text = "name: a\nworkers: 2..8\ngpus: 0.5\npreemptible: false\nestimate: 2h\n"
    assert parse_workloads(json.dumps(fields).encode()) == parse_workloads(text.encode())


def test_one_workload_is_a_list_of_one():
    [spec] = parse_workloads(b"{name: a}")
    assert parse_workloads(b"- name: a") == parse_workloads(b'[{"name": "a"}]') == (spec,)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"3", b"just text", b"[1]", b"null", b"a: *b", b"\xff", b"a: \x00", b"\xef\xbb\xbf", b"{name: a"],
)
def test_what_is_no_workload_is_refused(body: bytes):
    with pytest.raises(MlaasError) as refused:
        parse_workloads(body)
    assert refused.value.status == 400


def test_nesting_without_end_is_refused_and_ends_nothing():
    with pytest.raises(ConfigError, match="recursion"):
        parse_workloads(b"{a: " * 4000 + b"}" * 4000)


def test_a_tag_makes_no_python_object():
    with pytest.raises(MlaasError, match="constructor"):
        parse_workloads(b"!!python/object/apply:os.getcwd []")


def test_long_json_is_read_and_long_yaml_is_not():
    rows = [{"name": "x" * 100}] * (MAX_YAML_BYTES // 100)
    assert len(parse_workloads(json.dumps(rows).encode())) == len(rows)
    with pytest.raises(InvalidRequest, match="as YAML"):
        parse_workloads(b"name: " + b"x" * MAX_YAML_BYTES)


def test_an_unknown_field_is_refused_with_its_place_and_the_nearest_that_there_is():
    with pytest.raises(MlaasError, match=r"workload 2.*'worker', did you mean 'workers'"):
        parse_workloads(b'[{"name": "a"}, {"worker": 2}]')
    with pytest.raises(MlaasError, match=r"body:2: .*'worker', did you mean 'workers'"):
        parse_workloads(b"name: a\nworker: 2")


def test_more_workloads_than_one_request_takes_are_refused_with_the_way_out():
    with pytest.raises(InvalidRequest, match="`array`"):
        parse_workloads(json.dumps([{}] * (MAX_WORKLOADS + 1)).encode())


@pytest.mark.parametrize("text", ["-1", "0", "101", "1.5", "x", "", "١", "1" * 30])
def test_a_number_out_of_range_names_the_range_and_the_value(text: str):
    with pytest.raises(MlaasError, match="from 1 to 100"):
        parse_number({"limit": text}, "limit", default=7, least=1, most=100)


def test_a_number_may_be_left_out():
    assert parse_number({}, "limit", default=7, least=1, most=100) == 7
    assert parse_number({"limit": "100"}, "limit", default=7, least=1, most=100) == 100


def test_a_switch_is_true_or_false():
    assert [parse_switch(query, "x") for query in ({}, {"x": "true"}, {"x": "false"})] == [False, True, False]
    with pytest.raises(MlaasError, match="'yes'"):
        parse_switch({"x": "yes"}, "x")


def test_an_unknown_parameter_is_refused_with_the_nearest_that_there_is():
    check_parameters({"state": "x"}, ("state", "limit"))
    with pytest.raises(MlaasError, match="did you mean 'state'"):
        check_parameters({"states": "x"}, ("state", "limit"))
