"""The router's file: what it accepts, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlaas.errors import ConfigError
from mlaas.router.catalog import build_catalog
from mlaas.router.config_file import load_config, parse_config
from mlaas.router.types import RoutingPolicy, Target

SHIPPED = Path(__file__).parents[3] / "serve_apps" / "config" / "router.yaml"


def test_the_shipped_file_is_valid_and_offers_nothing_without_keys(monkeypatch):
    for vendor in ("OPENAI", "ANTHROPIC", "GEMINI", "PERPLEXITY", "XAI"):
        monkeypatch.delenv(f"{vendor}_API_KEY", raising=False)
    catalog = build_catalog(load_config(SHIPPED))
    assert catalog.names(()) == ("default",)
    assert catalog.routes["default"].targets[0] == Target(provider="local", model="tiny-python")


def test_models_of_a_provider_appear_with_its_key(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    names = build_catalog(load_config(SHIPPED)).names(("tiny-python",))
    assert names[:2] == ("default", "tiny-python")
    assert any(name.startswith("anthropic/") for name in names)


def test_the_documented_format_is_read():
    config = parse_config(
        """
providers:
  openai: {api_key_env: OPENAI_API_KEY}
  house: {kind: openai_compatible, base_url: "http://127.0.0.1:9100/v1", api_key: x}
models:
  fast: {policy: failover, targets: [house/m, openai/gpt-5-mini]}
""",
        source="router.yaml",
    )
    assert config.models["fast"].policy is RoutingPolicy.FAILOVER
    assert config.models["fast"].targets[1].target == Target(provider="openai", model="gpt-5-mini")


def test_a_key_never_shows_in_the_configuration_as_text():
    text = "providers:\n  house: {kind: openai_compatible, base_url: 'http://x/v1', api_key: sk-canary}"
    assert "sk-canary" not in repr(parse_config(text, source="r"))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("providers:\n  openai:\n    api_key_evn: X", 3, "api_key_evn.*did you mean 'api_key_env'"),
        ("modles: {}", 1, "did you mean 'models'"),
        ("timeouts:\n  conect_s: 3", 2, "did you mean 'connect_s'"),
        ("timeouts:\n  connect_s: 0", 2, "greater than 0"),
        ("providers:\n  opnai: {api_key: x}", 2, "did you mean 'openai'"),
        ("providers:\n  house:\n    kind: openai_compatible", 2, "needs a base_url"),
        ("providers:\n  local: {kind: openai}", 2, "cannot be a provider's name"),
        ("providers:\n  openai: {api_key: x, api_key_env: Y}", 2, "give one of"),
        ("models:\n  a:\n    targets:\n      - tiny", 4, "write provider/model"),
        ("models:\n  a:\n    targets:\n      - local/x\n      - opnai/y", 5, "names no provider"),
        ("models:\n  a:\n    targets: []", 2, "at least one target"),
        ("models:\n  a:\n    targets:\n      - {target: local/x, wieght: 2}", 4, "did you mean 'weight'"),
        ("models:\n  a:\n    targets: [local/x]\n    burst: {targets: [opnai/y]}", 4, "names no provider"),
        ("models:\n  a:\n    targets: [local/x]\n    slo: {ttft: 1}", 4, "did you mean 'ttft_s'"),
        ("prices:\n  gpt-5: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}", 2, "provider/model"),
        ("prices:\n  local/x: {input_usd_per_mtok: -1, output_usd_per_mtok: 1}", 2, "greater than or equal to 0"),
        ("prices:\n  local/x:\n    input_usd: 1", 2, "is missing|unknown field"),
        ("models:\n  a:\n    targets: [local/x]\n    policy: quickest", 4, "failover.*, not 'quickest'"),
        ("models:\n  a: {targets: [local/x]}\n  a: {targets: [local/y]}", 3, "'a' is here twice"),
        ("models:\n  a: {targets: [local/x], drop_params: seed}", 2, "must be a list"),
        ("providers:\n  openai:\n    base_url: api.openai.com/v1", 3, "is no URL of an API"),
        ("models: [1]", 1, "must be a section"),
        ("- 1", 1, "must be a section"),
        ("models:\n  a: {targets: [", 2, "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_way_out(text, line, words):
    with pytest.raises(ConfigError, match=words) as caught:
        parse_config(text, source="router.yaml")
    assert caught.value.message.startswith(f"router.yaml:{line}: ")


@pytest.mark.parametrize(
    "text", ["prices: {local/x: {from: 2026-13-01}}", "a: " + "[" * 5000, "x: \x07", "a: 1\n---\nb: 2"]
)
def test_a_text_that_is_no_yaml_of_one_document_is_refused(text):
    with pytest.raises(ConfigError, match=r"^router\.yaml"):
        parse_config(text, source="router.yaml")


def test_a_wrong_secret_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        parse_config("providers: {openai: {api_key: 123456}}", source="router.yaml")
    assert "123456" not in caught.value.message


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_an_empty_file_is_an_empty_configuration():
    assert build_catalog(parse_config("", source="r")).names(("m",)) == ("m",)
