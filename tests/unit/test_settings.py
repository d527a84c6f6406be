"""Settings come from the environment, and survive the trip through a child's environment."""

from pathlib import Path

import pytest

from mlaas.errors import ConfigError
from mlaas.settings import load_settings


def test_defaults_are_the_documented_ones():
    settings = load_settings({})
    assert settings.home == Path.home() / ".mlaas"
    assert settings.gateway_url == "http://127.0.0.1:8000"
    assert settings.store_url == f"sqlite:///{settings.home}/mlaas.db"


def test_a_child_with_this_environment_loads_the_same_settings():
    settings = load_settings(
        {"MLAAS_HOME": "/x/y", "MLAAS_GATEWAY_PORT": "9000", "MLAAS_DATABASE_URL": "postgresql://h/d"}
    )
    assert load_settings(settings.environment()) == settings
    assert settings.store_url == "postgresql://h/d"


@pytest.mark.parametrize("value", ["0", "65536", "-1", "http", "80.5", "８０"])
def test_a_bad_port_names_the_variable_and_the_value(value: str):
    with pytest.raises(ConfigError, match=f"MLAAS_MLFLOW_PORT='{value}'"):
        load_settings({"MLAAS_MLFLOW_PORT": value})
