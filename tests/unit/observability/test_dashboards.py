"""What ops apply names metrics and labels that exist, and the dashboard shows every one of them."""

import json
import re
from pathlib import Path

import pytest
import yaml

from mlaas.observability.definitions import DEFINITIONS

CLUSTER = Path(__file__).parents[3] / "cluster"
DASHBOARD = json.loads((CLUSTER / "grafana" / "router.json").read_text())
RULES = yaml.safe_load((CLUSTER / "prometheus" / "router.rules.yaml").read_text())

EXPRESSIONS = {
    f"panel {panel['title']}": target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
} | {f"alert {rule['alert']}": rule["expr"] for group in RULES["groups"] for rule in group["rules"]}

NAMES = {definition.name: definition for definition in DEFINITIONS}


def used(expression: str) -> set[str]:
    return {
        name.removesuffix("_bucket") if name.removesuffix("_bucket") in NAMES else name
        for name in re.findall(r"mlaas_router_\w+", expression)
    }


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_an_expression_names_metrics_and_labels_that_exist(where: str) -> None:
    expression = EXPRESSIONS[where]
    assert used(expression)
    assert used(expression) <= set(NAMES)
    labels = {"replica", "le"} | {label for name in used(expression) for label in NAMES[name].labels}
    grouped = {label for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in re.split(r",\s*", group)}
    filtered = {label for group in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)=", group)}
    assert grouped | filtered <= labels


def test_histograms_are_read_by_bucket() -> None:
    for where, expression in EXPRESSIONS.items():
        for name in used(expression):
            if NAMES[name].buckets:
                assert f"{name}_bucket" in expression, where


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for panel in DASHBOARD["panels"] for target in panel["targets"] for name in used(target["expr"])}
    assert shown == set(NAMES)


def test_panels_do_not_overlap() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
