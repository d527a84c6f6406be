"""The vocabulary of the serving slice."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where one replica of a model answers OpenAI's HTTP protocol."""

    model: str
    """Served model name, the `model` field of a request."""
    url: str
    """Scheme, host and port, such as `http://10.0.0.5:41234`; the caller adds `/v1/...`."""
    replica_id: str
    """Serve's name of the replica."""
    api_key: str = field(repr=False)
    """Bearer token that the replica's engine asks for; made by the replica, known only inside the cluster."""


@dataclass(frozen=True, kw_only=True)
class EndpointSnapshot:
    """Every endpoint that is up, as of one version."""

    version: str
    """Changes whenever `endpoints` does, and never repeats: a restarted registry counts under a new prefix."""
    endpoints: tuple[Endpoint, ...]


class DeploymentSpec(BaseModel):
    """What one Serve application runs: the arguments of `serve_apps.llm:build`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """Model name that clients of the gateway send."""
    model: str
    """Name of the registered model."""
    version: int = Field(ge=1)
    """Version of the registered model."""
    cpus: int = Field(default=1, ge=1)
    """CPUs that Ray sets aside for a replica, and OpenMP threads of its engine on CPU.

    One is the fastest for small models: the engine's HTTP server and the gateway want cores too.
    """
