"""Where an MLaaS instance lives and listens: the only reader of the environment.

An instance is one folder (`MLAAS_HOME`) with everything it owns: the embedded store, MLflow's files, training runs and
logs. Every process of the instance gets the same variables, so each one loads the same `Settings`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from mlaas.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Addresses and folders of one instance. Each field `x` is read from `MLAAS_X`."""

    home: Path
    """Folder of the instance. Default `~/.mlaas`."""
    gateway_port: int = 8000
    """Port of the HAProxy ingress, where the gateway answers."""
    dashboard_port: int = 8265
    """Loopback port of the Ray dashboard and its job API."""
    gcs_port: int = 6379
    """Port of the Ray head's control store, which worker nodes join."""
    mlflow_port: int = 5000
    """Loopback port of MLflow's server."""
    database_url: str = ""
    """SQLAlchemy URL of the store. Empty: SQLite inside `home`."""
    router_config: str = ""
    """Path of the router's YAML file. Empty: the one shipped in `serve_apps/config`."""

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store that this instance uses."""
        return self.database_url or f"sqlite:///{self.home / 'mlaas.db'}"

    @property
    def runs_dir(self) -> Path:
        """Folder of training runs: checkpoints and exported models."""
        return self.home / "runs"

    @property
    def models_dir(self) -> Path:
        """Folder where replicas keep the registered models they serve."""
        return self.home / "models"

    @property
    def kernels_dir(self) -> Path:
        """Folder where engines on CPU keep the kernels that they compile."""
        return self.home / "kernels"

    @property
    def credentials_path(self) -> Path:
        """File of this machine's own API key, which the command line uses."""
        return self.home / "credentials"

    @property
    def logs_dir(self) -> Path:
        """Folder of the logs of processes that Ray does not own."""
        return self.home / "logs"

    @property
    def tracking_uri(self) -> str:
        """URL of MLflow's server."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def dashboard_url(self) -> str:
        """URL of the Ray dashboard and job API."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def gateway_url(self) -> str:
        """URL of the gateway, as seen from this machine."""
        return f"http://127.0.0.1:{self.gateway_port}"

    def environment(self) -> dict[str, str]:
        """Return the variables that make another process load these settings."""
        return {f"MLAAS_{f.name.upper()}": str(getattr(self, f.name)) for f in fields(self)}


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the instance's settings.

    Args:
        environment: variables to read. None: those of this process.

    Raises:
        ConfigError: a port is not a number from 1 to 65535.
    """
    env = os.environ if environment is None else environment
    ports = {f.name: _parse_port(env, f"MLAAS_{f.name.upper()}") for f in fields(Settings) if f.name.endswith("_port")}
    return Settings(
        home=Path(env.get("MLAAS_HOME") or Path.home() / ".mlaas").expanduser().absolute(),
        database_url=env.get("MLAAS_DATABASE_URL", ""),
        router_config=env.get("MLAAS_ROUTER_CONFIG", ""),
        **{name: port for name, port in ports.items() if port is not None},
    )


def router_config_path(settings: Settings) -> Path:
    """Return the path of the router's YAML file: the one set, or the one shipped with the Serve applications."""
    return Path(settings.router_config or Path(__file__).parent.parent / "serve_apps" / "config" / "router.yaml")


def inherited_environment() -> dict[str, str]:
    """Return a copy of this process's environment, as the base of a child's."""
    return dict(os.environ)


def ray_token_path() -> Path:
    """Return the file of the token that Ray's authentication asks for (`RAY_AUTH_TOKEN_PATH`, or Ray's own default)."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def collects_traces() -> bool:
    """Tell whether OpenTelemetry's own variables name a collector for traces."""
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))


def lease_id() -> str | None:
    """Return the lease that the scheduler has started this process for (`MLAAS_LEASE_ID`); None: it has not."""
    return os.environ.get("MLAAS_LEASE_ID") or None


def read_secret(variable: str) -> str | None:
    """Return a secret, such as a provider's API key, from the environment; None when it is unset or empty."""
    return os.environ.get(variable) or None


def _parse_port(env: Mapping[str, str], variable: str) -> int | None:
    text = env.get(variable, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 65535:
        raise ConfigError("bad_port", f"{variable}={text!r} is not a port; give a number from 1 to 65535")
    return int(text)
