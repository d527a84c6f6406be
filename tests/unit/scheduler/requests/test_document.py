import math
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.errors import ConfigError
from mlaas.scheduler.requests.document import decode_spec, encode_spec, parse_spec, parse_specs
from mlaas.scheduler.requests.quantities import (
    MOST_INDEXES,
    MOST_S,
    format_array,
    parse_array,
    parse_duration,
    parse_size,
)
from mlaas.scheduler.requests.spec import Command, Retries, WorkloadSpec
from mlaas.scheduler.types import Gang, Kind, Resources, Strategy

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(str.strip)
seconds = st.floats(0, MOST_S)
amounts = st.floats(0, 1e6)
pairs = st.dictionaries(names, names, max_size=3).map(lambda found: tuple(found.items()))
speeds = st.dictionaries(names, amounts, max_size=2).map(lambda found: tuple(found.items()))
sizes = st.tuples(st.integers(1, 1000), st.integers(0, 1000)).map(lambda both: (both[0], sum(both)))
arrays = st.one_of(
    st.lists(st.integers(0, 10**9), unique=True, max_size=20), st.integers(1, 200).map(lambda count: range(count))
).map(tuple)


@st.composite
def specs(draw: st.DrawFn) -> WorkloadSpec:
    least, most = draw(sizes)
    custom = draw(st.dictionaries(names, amounts, max_size=2))
    worker = Resources(draw(amounts), draw(amounts), draw(st.integers(0, 2**50)), tuple(custom.items()))
    topology = draw(st.none() | names)
    command = Command(
        argv=tuple(draw(st.lists(names, min_size=1, max_size=3))),
        environment=draw(pairs),
        working_dir=draw(st.none() | names),
    )
    deadline = draw(st.none() | seconds | st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)))  # noqa: DTZ001 - Hypothesis adds the zone
    return WorkloadSpec(
        gang=Gang(worker, least, most, draw(st.sampled_from(Strategy)), topology, draw(pairs), draw(speeds)),
        kind=draw(st.sampled_from(Kind)),
        name=draw(st.just("") | names),
        queue=draw(names),
        priority_class=draw(names),
        preemptible=draw(st.booleans()),
        estimate_s=draw(st.none() | seconds),
        deadline_s=deadline if isinstance(deadline, float) else None,
        deadline_at=deadline if isinstance(deadline, datetime) else None,
        min_runtime_s=draw(st.none() | seconds),
        restart_cost_s=draw(seconds),
        yield_grace_s=draw(seconds),
        retries=Retries(max_retries=draw(st.integers(0, 99)), backoff_s=draw(seconds), max_backoff_s=draw(seconds)),
        depends_on=tuple(draw(st.lists(names, unique=True, max_size=3))),
        array=draw(arrays),
        command=draw(st.none() | st.just(command)),
    )


@given(specs())
def test_what_is_written_is_read_back_equal_through_json(spec: WorkloadSpec) -> None:
    assert decode_spec(orjson.loads(orjson.dumps(encode_spec(spec)))) == spec


@given(arrays.filter(bool))
def test_indexes_are_written_and_read_back_in_their_order(indexes: tuple[int, ...]) -> None:
    assert parse_array(format_array(indexes)) == indexes


def test_a_long_range_is_written_shortly() -> None:
    assert format_array(range(10_000)) == "0-9999"
    assert format_array([0, 1, 2, 7, 9, 10]) == "0-2,7,9-10"


FULL_TEXT = """
name: resnet50
kind: Train
queue: research
priority: high
workers: 2..8
gpus: 0.5
cpus: 4
memory: 16GiB
resources: {TPU: 1}
labels: {accelerator: h100, zone: 3}
throughput: {h100: 2.5}
strategy: strict_spread
topology: rack
preemptible: false
estimate: 1h30m
deadline: 6h
min_runtime: 10m
restart_cost: 45s
yield_grace: 2m
retries: {max: 3, backoff: 30s}
depends_on: [prepare, fetch]
array: 0-2,7
command: [python, -m, train, --epochs, 3]
environment: {SEED: 7, MODE: fast}
working_dir: sha256-1
"""
FULL = WorkloadSpec(
    name="resnet50",
    kind=Kind.TRAIN,
    queue="research",
    priority_class="high",
    gang=Gang(
        Resources(gpus=0.5, cpus=4, memory_bytes=16 * 2**30, custom=(("TPU", 1.0),)),
        min_workers=2,
        max_workers=8,
        strategy=Strategy.STRICT_SPREAD,
        topology="rack",
        labels=(("accelerator", "h100"), ("zone", "3")),
        throughput=(("h100", 2.5),),
    ),
    preemptible=False,
    estimate_s=5400,
    deadline_s=21_600,
    min_runtime_s=600,
    restart_cost_s=45,
    yield_grace_s=120,
    retries=Retries(max_retries=3, backoff_s=30),
    depends_on=("prepare", "fetch"),
    array=(0, 1, 2, 7),
    command=Command(
        argv=("python", "-m", "train", "--epochs", "3"),
        environment=(("SEED", "7"), ("MODE", "fast")),
        working_dir="sha256-1",
    ),
)


def test_all_fields_are_read() -> None:
    assert parse_specs(FULL_TEXT, origin="w.yaml") == (FULL,)


def test_what_is_left_out_has_the_defaults_of_the_spec() -> None:
    assert parse_spec({"gpus": 1}) == WorkloadSpec(gang=Gang(Resources(gpus=1, cpus=1)))
    assert parse_spec({"estimate": None, "command": None}) == parse_spec({})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("workers", 4, {"workers": 4}),
        ("workers", "4", {"workers": 4}),
        ("workers", "4..4", {"workers": 4}),
        ("gpus", "0.5", {"gpus": 0.5}),
        ("retries", "3", {"retries": {"max": 3}}),
        ("depends_on", "one", {"depends_on": ["one"]}),
        ("array", "100", {"array": "0-99"}),
        ("array", 3, {"array": [0, 1, 2]}),
        ("command", "echo $HOME | wc", {"command": ["/bin/sh", "-c", "echo $HOME | wc"]}),
        ("deadline", "2026-12-01T08:00:00+01:00", {"deadline": "2026-12-01T07:00:00Z"}),
        ("deadline", datetime(2026, 12, 1, 8, tzinfo=timezone(timedelta(hours=1))), {"deadline": "2026-12-01 07:00Z"}),
        ("deadline", "90", {"deadline": 90}),
    ],
)
def test_a_value_may_be_written_in_several_ways(field: str, value: object, expected: dict[str, Any]) -> None:
    assert parse_spec({field: value}) == parse_spec(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), (" 90s", 90), ("1.5h", 5400), ("1h30m", 5400), ("1h 30min", 5400), ("2d", 172_800), ("500ms", 0.5)],
)
def test_times(text: str, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (7, 7),
        ("7", 7),
        ("512 MiB", 2**29),
        ("4Gi", 2**32),
        ("4GB", 4 * 10**9),
        ("1.5k", 1500),
        ("2tib", 2**41),
        (1e9, 10**9),
    ],
)
def test_sizes(text: object, expected: int) -> None:
    assert parse_size(text) == expected


BAD = [
    ("gpu", 1, r"unknown field 'gpu', did you mean 'gpus'\?; known: name, kind,"),
    ("gpus", -1, "-1 is not a finite number, 0 or more"),
    ("gpus", math.nan, "nan is not a finite number"),
    ("gpus", "inf", "'inf' is not a finite number"),
    ("gpus", True, "True is not a finite number"),
    ("cpus", "many", "'many' is not a finite number"),
    ("memory", "4 floppies", "'4 floppies' is not a size; write 512MiB, 4GiB"),
    ("memory", -5, "-5 is not a size"),
    ("resources", {"TPU": -1}, "-1 is not a finite number"),
    ("workers", "8..", "write 4, or 2..8 for a gang that may shrink and grow"),
    ("workers", "8..2", "write 2..8"),
    ("workers", 2.5, "2.5 is not a number of workers"),
    ("workers", True, "True is not a number of workers"),
    ("kind", "job array", "'job array' is not one of job, train, tune, serve, batch"),
    ("strategy", "RANDOM", "'RANDOM' is not one of PACK, STRICT_PACK, SPREAD, STRICT_SPREAD"),
    ("preemptible", "yes please", "'yes please' is neither true nor false"),
    ("estimate", "2 fortnights", "'2 fortnights' is not a time; write 90s, 15m, 2h, 1h30m or 3d"),
    ("estimate", "-2h", "'-2h' is not a time"),
    ("estimate", math.inf, "inf is not a time"),
    ("estimate", "11000d", "longer than ten years; check its unit"),
    ("deadline", "2026-12-01", r"2026-12-01 00:00:00 has no time zone; write it with its own"),
    ("deadline", "2026-13-01", "'2026-13-01' is not a date"),
    ("array", "5-1", "'5-1' runs backwards; write 1-5"),
    ("array", 10_001, "at most 10,000 indexes; submit several"),
    ("array", "0-999999999", "at most 10,000 indexes"),
    ("array", list(range(20_000)), "at most 10,000 indexes"),
    ("array", [1, 2, 1], "index 1 is named twice"),
    ("array", [-1], "-1 is not an index"),
    ("array", [], "the array is empty"),
    ("array", "a-b", "is no array; write how many"),
    ("command", [], r"\[\] is not a command"),
    ("command", " ", "it is empty"),
    ("command", ["a", ["b"]], r"\['b'\] of command is neither text nor number"),
    ("environment", {"A": "b"}, "it is part of a command, and there is none; give `command` too"),
    ("working_dir", "d", "it is part of a command"),
    ("depends_on", ["a", "a"], "'a' is named twice"),
    ("depends_on", 7, "7 is not a list of names"),
    ("queue", 3, "3 is not a text; put it in quotes"),
    ("queue", "", "it is empty; leave it out"),
    ("labels", ["a"], "is not a mapping"),
    ("labels", {"a": True}, "True of a is neither text nor number; put it in quotes"),
    ("name", "a\0b", "holds a zero byte"),
]


@pytest.mark.parametrize(("field", "value", "reason"), BAD)
def test_a_bad_value_is_refused_with_field_value_and_way_out(field: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"^flags: {field}(\.\w+)?: .*{reason}") as refused:
        parse_spec({field: value}, origin="flags")
    assert refused.value.code == "bad_workload"


def test_an_unknown_field_of_a_section_names_the_section_s_fields() -> None:
    with pytest.raises(
        ConfigError, match=r"retries\.mx: unknown field 'mx', did you mean 'max'\?; known: max, backoff"
    ):
        parse_spec({"retries": {"mx": 1}})


def test_a_long_value_is_shown_shortly() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_spec({"estimate": "x" * 10**6})
    assert len(refused.value.message) < 250


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("\n\ngpus: 1\nestimate: soon", r"w\.yaml:4: estimate:"),
        ("gpus: 1\n---\ncpus: 2\nretries:\n  max: -1", r"w\.yaml:5: retries\.max:"),
        ("- gpus: 1\n- cpus: 2\n  gpus: x", r"w\.yaml:3: gpus:"),
        ("gpus: 1\nlabels:\n  a: b\n  a: c", r"w\.yaml:4: 'a' is here twice"),
        ("gpus: [", r"w\.yaml:1: not valid YAML"),
        ("- gpus: 1\n- 7", r"w\.yaml:2: a workload is a mapping of fields"),
        ("gpus: 1\nenvironment: {A: b}", r"w\.yaml:2: environment: it is part of a command"),
        ("# nothing", r"^w\.yaml holds no workload; docs/workloads\.md"),
    ],
)
def test_mistakes_in_a_file_are_located(text: str, where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        parse_specs(text, origin="w.yaml")


def test_a_file_holds_one_workload_or_several() -> None:
    assert [spec.name for spec in parse_specs("name: a\n---\n---\n- name: b\n- name: c\n", origin="w")] == [
        "a",
        "b",
        "c",
    ]


def test_most_indexes_are_accepted() -> None:
    assert len(parse_spec({"array": MOST_INDEXES}).array) == MOST_INDEXES


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.datetimes() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(field=st.sampled_from(sorted(encode_spec(FULL))), value=anything)
def test_whatever_a_field_holds_is_read_or_refused(field: str, value: object) -> None:
    with suppress(ConfigError):
        spec = parse_spec({"command": "true", field: value})
        assert decode_spec(orjson.loads(orjson.dumps(encode_spec(spec)))) == spec


@given(st.text(st.sampled_from("ab:1-.[]{}&*!,#'\"\n \t\0%@"), max_size=30))
def test_whatever_a_file_holds_is_read_or_refused(text: str) -> None:
    with suppress(ConfigError):
        parse_specs(text, origin="w.yaml")


@pytest.mark.parametrize("field", sorted(encode_spec(FULL)))
def test_a_value_of_endless_aliases_is_refused_at_once(field: str) -> None:
    bomb: list[Any] = [1]
    for _ in range(50):
        bomb = [bomb, bomb]
    with pytest.raises(ConfigError) as refused:
        parse_spec({"command": "true", field: bomb})
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("text", ["gpus: 2026-13-01", "a: \x00", "[" * 3_000, "deadline: 0001-01-01T00:00:00+14:00"])
def test_what_yaml_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^w\.yaml"):
        parse_specs(text, origin="w.yaml")


@pytest.mark.parametrize("value", ["9" * 500 + "GiB", 10**400, "2e30"])
def test_more_memory_than_there_is_in_the_world_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"exbibyte|not a size"):
        parse_spec({"memory": value})
