"""`docs/workloads.md` says what is read: its examples are, and its tables have every field."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlaas.errors import ConfigError
from mlaas.scheduler.requests.document import parse_spec, parse_specs
from mlaas.scheduler.requests.queues_file import parse_queues

REFERENCE = (Path(__file__).parents[4] / "docs" / "workloads.md").read_text()
WORKLOADS, QUEUES = REFERENCE.split("\n## The queues\n")


def examples(text: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def fields(text: str, heading: str) -> set[str]:
    """Return the names in the first column of the table with this heading."""
    rows = text.split(f"| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def known(document: dict[str, Any], *, parse: Any) -> set[str]:
    with pytest.raises(ConfigError, match="known: ") as refused:
        parse(document)
    return set(refused.value.message.partition("known: ")[2].split(", "))


def test_the_examples_of_workloads_are_read() -> None:
    train, array = [parse_specs(text, origin="docs") for text in examples(WORKLOADS)]
    assert (train[0].gang.min_workers, train[0].gang.max_workers) == (2, 8)
    assert len(array[0].array) == 100


def test_the_example_of_queues_is_read() -> None:
    (text,) = examples(QUEUES)
    document = parse_queues(yaml.safe_load(text))
    assert document.leaves() == ("production", "research")
    assert document.growth.node_types[0].max_nodes == 2


def test_the_tables_have_every_field() -> None:
    assert fields(WORKLOADS, "field") == known({"x": 1}, parse=parse_spec)
    retries = known({"retries": {"x": 1}}, parse=parse_spec)
    assert all(f"`{name}`" in WORKLOADS for name in retries)


@pytest.mark.parametrize(
    ("heading", "document"),
    [
        ("field", {"x": 1}),
        ("field of a queue", {"queues": {"a": {"x": 1}}}),
        ("field of a priority class", {"priority_classes": {"a": {"priority": 1, "x": 1}}}),
        ("field of `autoscaling`", {"autoscaling": {"x": 1}}),
        ("field of a node type", {"autoscaling": {"node_types": {"a": {"max_nodes": 1, "x": 1}}}}),
    ],
)
def test_the_tables_of_queues_have_every_field(heading: str, document: dict[str, Any]) -> None:
    assert fields(QUEUES, heading) == known(document, parse=parse_queues)
