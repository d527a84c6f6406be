"""MLflow's server as a client meets it: its failures, as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from mlaas.errors import PlatformError


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Raise MLflow's failures as PlatformError."""
    try:
        yield
    except MlflowException as error:
        text = f"MLflow at {uri} failed: {error.message}; run `mlaas doctor`"
        raise PlatformError("tracking_failed", text) from error
