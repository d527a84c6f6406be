"""What ops apply names metrics and labels that exist, and the dashboards show every one of them."""

import json
import re
from pathlib import Path

import pytest
import yaml

from mlaas.observability.definitions import DEFINITIONS, SCHEDULER

CLUSTER = Path(__file__).parents[3] / "cluster"
PARTS = {"router": DEFINITIONS, "scheduler": SCHEDULER}
DASHBOARDS = {part: json.loads((CLUSTER / "grafana" / f"{part}.json").read_text()) for part in PARTS}
RULES = {part: yaml.safe_load((CLUSTER / "prometheus" / f"{part}.rules.yaml").read_text()) for part in PARTS}
NAMES = {definition.name: definition for definitions in PARTS.values() for definition in definitions}

EXPRESSIONS = {
    f"panel {panel['title']} of {part}": target["expr"]
    for part, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    for target in panel["targets"]
} | {
    f"alert {rule['alert']}": rule["expr"]
    for rules in RULES.values()
    for group in rules["groups"]
    for rule in group["rules"]
}


def used(expression: str) -> set[str]:
    found = set()
    for name in re.findall(r"mlaas_(?:router|scheduler)_\w+", expression):
        histogram = re.sub(r"_(bucket|count)$", "", name)
        found.add(histogram if histogram in NAMES and NAMES[histogram].buckets else name)
    return found


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_an_expression_names_metrics_and_labels_that_exist(where: str) -> None:
    expression = EXPRESSIONS[where]
    assert used(expression)
    assert used(expression) <= set(NAMES)
    labels = {"replica", "le"} | {label for name in used(expression) for label in NAMES[name].labels}
    grouped = {label for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in re.split(r",\s*", group)}
    filtered = {label for group in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)=", group)}
    assert grouped | filtered <= labels


def test_quantiles_are_read_by_bucket() -> None:
    for where, expression in EXPRESSIONS.items():
        for name in used(expression):
            if NAMES[name].buckets:
                assert re.search(rf"{name}_(bucket|count)", expression), where


@pytest.mark.parametrize("part", PARTS)
def test_the_dashboard_shows_every_metric(part: str) -> None:
    panels = DASHBOARDS[part]["panels"]
    shown = {name for panel in panels for target in panel["targets"] for name in used(target["expr"])}
    assert shown == {definition.name for definition in PARTS[part]}


@pytest.mark.parametrize("part", PARTS)
def test_panels_do_not_overlap(part: str) -> None:
    panels = DASHBOARDS[part]["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels}) == len(places)


def test_prometheus_reads_the_rules_of_all_parts() -> None:
    config = yaml.safe_load((CLUSTER / "prometheus" / "prometheus.yaml").read_text())
    assert config["rule_files"] == [f"{part}.rules.yaml" for part in PARTS]
    assert [job["job_name"] for job in config["scrape_configs"]] == [f"mlaas-{part}" for part in PARTS]
