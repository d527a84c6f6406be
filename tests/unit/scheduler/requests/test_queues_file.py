from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas.errors import AdmissionError, ConfigError
from mlaas.scheduler.autoscaling.types import Growth, NodeType
from mlaas.scheduler.requests.queue_changes import diff
from mlaas.scheduler.requests.queues import DEFAULT_CLASSES, PriorityClass, QueuesDocument
from mlaas.scheduler.requests.queues_file import encode_queues, load_queues, parse_queues
from mlaas.scheduler.types import Node, Queue, Resources
from mlaas.scheduler.validation import check_queues

EXAMPLE = Path(__file__).parents[4] / "cluster" / "queues.yaml"

names = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
amounts = st.dictionaries(st.sampled_from(["GPU", "CPU", "memory", "TPU"]), st.integers(0, 100).map(float), max_size=2)
pairs = amounts.map(lambda found: tuple(found.items()))


@st.composite
def documents(draw: st.DrawFn) -> QueuesDocument:
    leaves = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    queues = [Queue("root-of-all")]
    for name in leaves:
        guarantee = draw(pairs)
        lending = tuple((resource, amount // 2) for resource, amount in guarantee)
        weight = draw(st.floats(0.1, 10))
        queues.append(Queue(name, "root-of-all", guarantee, draw(pairs), lending, weight))
    tenants = {
        name: tuple(draw(st.lists(names, min_size=1, max_size=2, unique=True)))
        for name in draw(st.sets(st.sampled_from(leaves)))
    }
    classes = {each.name: each for each in DEFAULT_CLASSES}
    for name in draw(st.sets(names, max_size=2)):
        classes[name] = PriorityClass(
            name=name, number=draw(st.integers(-10_000, 10_000)), preempts=draw(st.booleans())
        )
    node_types = tuple(
        NodeType(
            name=name,
            capacity=Resources(draw(st.integers(0, 8)), 4.0, draw(st.integers(0, 2**40)), (("TPU", 1.0),)),
            labels=(("zone", name),),
            max_nodes=draw(st.integers(0, 9)),
            price_usd_per_hour=draw(st.floats(0, 100)),
        )
        for name in draw(st.lists(names, unique=True, max_size=2))
    )
    return QueuesDocument(
        queues=tuple(queues),
        tenants=tuple((name, tenants[name]) for name in leaves if name in tenants),
        default_queue=draw(st.sampled_from(leaves)),
        priority_classes=tuple(classes.values()),
        growth=Growth(node_types=node_types, max_usd_per_hour=draw(st.none() | st.floats(0, 1000))),
    )


@settings(max_examples=40)
@given(documents())
def test_what_is_written_is_read_back_equal_through_json(document: QueuesDocument) -> None:
    assert parse_queues(orjson.loads(orjson.dumps(encode_queues(document)))) == document


@settings(max_examples=40)
@given(documents(), documents())
def test_a_difference_is_said_exactly_when_there_is_one(old: QueuesDocument, new: QueuesDocument) -> None:
    assert diff(old, old) == ()
    assert bool(diff(old, new)) == (_unordered(old) != _unordered(new))


def _unordered(document: QueuesDocument) -> object:
    """What a document says, whatever the order of its parts."""
    encoded = encode_queues(document)
    for queue in encoded["queues"].values():
        queue["tenants"] = sorted(queue.get("tenants", ["everybody"]))
    return encoded


def test_the_example_is_read_and_fits_the_cluster_that_it_names() -> None:
    document = load_queues(EXAMPLE)
    assert document.leaves() == ("production", "research", "students")
    assert document.default_queue == "research"
    assert document.class_of("nightly", tenant="anybody") == PriorityClass(name="nightly", number=-50, preempts=False)
    assert document.class_of("urgent", tenant="ads").number == 500
    assert "urgent" not in [each.name for each in document.classes_for("anybody")]
    assert document.queue_for("default", tenant="anybody") == "research"
    assert document.queues[1] == Queue(
        "production",
        "company",
        guarantee=(("GPU", 12.0),),
        borrowing_limit=(("GPU", 8.0),),
        lending_limit=(("GPU", 8.0),),
        weight=2.0,
    )
    check_queues(document.queues, [Node(f"n{n}", Resources(gpus=8, cpus=64)) for n in range(4)])


def test_the_example_s_commented_part_is_right_too(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    head, _, tail = text.partition("# autoscaling:")
    path = tmp_path / "queues.yaml"
    path.write_text(head + "autoscaling:" + tail.replace("\n#", "\n"))
    growth = load_queues(path).growth
    assert growth.max_usd_per_hour == 60
    assert growth.node_types[0].capacity == Resources(gpus=8, cpus=96, memory_bytes=2**40)
    assert growth.node_types[0].labels == (("accelerator", "h100"),)


def test_an_empty_document_is_one_queue_for_all() -> None:
    assert parse_queues({}) == QueuesDocument()


def test_built_in_classes_may_be_changed_and_stay_otherwise() -> None:
    document = parse_queues({"priority_classes": {"high": 7, "low": {"priority": -1}}})
    assert {each.name: each.number for each in document.priority_classes} == {
        "low": -1,
        "normal": 0,
        "high": 7,
        "serving": 1_000,
    }
    assert document.class_of("low", tenant="anybody").preempts


def test_a_class_may_be_kept_for_tenants_and_serving_is_unless_it_is_given_others() -> None:
    kept = {"urgent": {"priority": 500, "tenants": ["ads"]}, "serving": 2_000}
    document = parse_queues({"priority_classes": kept})
    assert [each.name for each in document.classes_for("ads")] == ["low", "normal", "high", "urgent"]
    assert [each.name for each in document.classes_for("serving")][-1] == "serving"
    with pytest.raises(AdmissionError, match="'serving' is not for tenant ads; ads may use low, normal, high, urgent"):
        document.class_of("serving", tenant="ads")
    shared = parse_queues({"priority_classes": {"serving": {"priority": 2_000, "tenants": ["serving", "ads"]}}})
    assert shared.class_of("serving", tenant="ads").number == 2_000
    assert parse_queues(encode_queues(document)) == document


@pytest.mark.parametrize(
    ("text", "where", "code"),
    [
        (
            "queues:\n  a:\n  b:\n    wieght: 3",
            r":4: queues\.b\.wieght: unknown field .* did you mean 'weight'",
            "bad_queues",
        ),
        ("queues:\n  a: {}\n  a: {}", ":3: 'a' is here twice; keep one", "bad_queues"),
        (
            "queues:\n  a:\n    guarantee: {gpus: -1}",
            r":3: queues\.a\.guarantee: gpus: -1 is not a finite",
            "bad_queues",
        ),
        ("queues:\n  a:\n    guarantee: {gpus: .nan}", r":3: .* nan is not a finite number", "bad_queues"),
        ("queues:\n  a:\n    lending_limit: {GPU: 1}", r":3: .*'GPU' is written 'gpus'", "bad_queues"),
        ("queues:\n  a:\n    tenants: []", ":3: .*it names nobody; leave it out", "bad_queues"),
        ("queues:\n  a b: {}", ":2: .*'a b' is no name", "bad_queues"),
        ("queues:\n  a: {parent: b}", ":2: queue a: no parent 'b'", "unknown_queue"),
        ("queues:\n  a:\n    parent: b\n  b:\n    parent: a", ":3: queues are their own ancestors", "cyclic_queues"),
        ("queues:\n  a:\n    weight: 0", ":3: queue a: weight is 0.0", "bad_quota"),
        ("queues:\n  a:\n    lending_limit: {gpus: 1}", ":3: queue a: lends 1 GPU and is guaranteed 0", "bad_quota"),
        (
            "queues:\n  all:\n    guarantee: {gpus: 4}\n  a: {parent: all, guarantee: {gpus: 3}}\n"
            "  b: {parent: all, guarantee: {gpus: 2}}",
            ":3: queues below all are guaranteed 5 GPU, which has 4",
            "quota_exceeds_cohort",
        ),
        (
            "queues: {a: {}, b: {}}\n",
            ":1: default_queue: 'default' takes no workloads; name one of a, b",
            "bad_default_queue",
        ),
        (
            "queues: {a: {}, b: {parent: a}}\ndefault_queue: a",
            ":2: default_queue: 'a' takes no workloads; name one of b",
            "bad_default_queue",
        ),
        ("priority_classes:\n  x: 1e9", r":2: .*'1e9' is not a priority; .* within ±10,000", "bad_queues"),
        (
            "priority_classes:\n  x: {preempts: true}",
            r":2: priority_classes\.x\.priority: is missing",
            "bad_queues",
        ),
        ("autoscaling:\n  max_usd_per_hour: -1", r":2: autoscaling\.max_usd_per_hour: -1 is not", "bad_queues"),
        ("autoscaling:\n  node_types:\n    a: {max_nodes: 1.5}", r":3: .*1\.5 is not a whole number", "bad_queues"),
        ("- a", ":1: it is a mapping with `queues`, not a list", "bad_queues"),
        ("a: 1\n---\nb: 2", " holds 2 documents; queues are one", "bad_queues"),
        ("", " holds 0 documents", "bad_queues"),
        ("queues: {", ":1: not valid YAML", "bad_queues"),
    ],
)
def test_mistakes_are_located(tmp_path: Path, text: str, where: str, code: str) -> None:
    path = tmp_path / "queues.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"queues\.yaml{where}") as refused:
        load_queues(path)
    assert refused.value.code == code


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*no\.yaml"):
        load_queues(tmp_path / "no.yaml")


DOCUMENT = QueuesDocument(
    queues=(Queue("all"), Queue("a", "all", guarantee=(("GPU", 4.0),)), Queue("b", "all"), Queue("c", "all")),
    tenants=(("a", ("x", "y")), ("c", ("y",))),
    default_queue="b",
)


@pytest.mark.parametrize(
    ("name", "tenant", "reason"),
    [
        ("c", "x", "queue 'c' is not for tenant x; x may use a, b"),
        ("all", "x", "queue 'all' only holds other queues; x may use a, b"),
        ("bb", "z", r"no queue 'bb', did you mean 'b'\?; z may use b"),
    ],
)
def test_a_queue_that_a_tenant_may_not_use_is_refused_with_those_it_may(name: str, tenant: str, reason: str) -> None:
    with pytest.raises(AdmissionError, match=f"^{reason}$"):
        DOCUMENT.queue_for(name, tenant=tenant)


def test_work_without_a_queue_goes_to_the_default_one() -> None:
    assert DOCUMENT.queue_for("default", tenant="z") == "b"
    assert DOCUMENT.queue_for("default", tenant="x") == "a", "the first that names the tenant"
    assert DOCUMENT.queue_for("a", tenant="y") == "a"


def test_an_unknown_class_is_refused_with_those_there_are() -> None:
    with pytest.raises(AdmissionError, match=r"'hihg', did you mean 'high'\?; anybody may use low, normal, high"):
        DOCUMENT.class_of("hihg", tenant="anybody")


def change(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [each.text for each in diff(parse_queues(old), parse_queues(new))]


def test_changes_are_told_in_one_line_each() -> None:
    old = {"default_queue": "a", "queues": {"a": {"guarantee": {"gpus": 4}}, "b": {}}}
    new = {
        "default_queue": "a",
        "queues": {"a": {"guarantee": {"gpus": 8, "memory": "1GiB"}, "tenants": ["x"]}, "c": {"weight": 2}},
        "priority_classes": {"high": 200},
        "autoscaling": {"max_usd_per_hour": 50, "node_types": {"big": {"gpus": 8, "max_nodes": 2, "usd_per_hour": 25}}},
    }
    assert change(old, new) == [
        "~ cluster: spend limit not set -> 50 USD per hour",
        "+ node type big: capacity 8 GPUs; at most 2 nodes; price 25 USD per hour",
        "~ priority class high: priority 100 -> 200",
        "~ queue a: guarantee 4 GPUs -> 8 GPUs, 1 GiB of memory",
        "~ queue a: tenants all -> x",
        "- queue b: weight 1; tenants all",
        "+ queue c: weight 2; tenants all",
    ]
    assert change(new, new) == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    place=st.sampled_from(
        [
            ("queues",),
            ("queues", "a"),
            ("queues", "a", "guarantee"),
            ("queues", "a", "weight"),
            ("queues", "a", "tenants"),
            ("priority_classes", "c"),
            ("autoscaling",),
            ("autoscaling", "node_types", "n"),
            ("default_queue",),
        ]
    ),
    value=anything,
)
def test_whatever_is_written_somewhere_is_read_or_refused(place: tuple[str, ...], value: object) -> None:
    document: Any = value
    for name in reversed(place):
        document = {name: document}
    with suppress(ConfigError):
        queues = parse_queues({"default_queue": "a", **document})
        assert parse_queues(orjson.loads(orjson.dumps(encode_queues(queues)))) == queues


def test_a_value_of_endless_aliases_is_refused_at_once() -> None:
    bomb: list[Any] = [1]
    for _ in range(50):
        bomb = [bomb, bomb]
    for document in ({"queues": {"a": {"guarantee": bomb}}}, {"priority_classes": {"a": bomb}}, bomb):
        with pytest.raises(ConfigError) as refused:
            parse_queues(document)
        assert len(refused.value.message) < 300
