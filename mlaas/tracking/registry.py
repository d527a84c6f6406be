"""The model registry: names, versions and aliases of models that can be served."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import RestException

from mlaas.errors import ConfigError, NotFound
from mlaas.tracking.server import translated

CHAMPION = "champion"
"""Alias of the version that is served when none is asked for."""
PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".ckpt", ".npz"})
_PICKLE_MAGIC = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_ARTIFACT_PATH = "model"


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """One version of a registered model."""

    name: str
    """Name of the model, as clients of the gateway say it."""
    version: int
    """Counted from 1 within the name."""
    aliases: tuple[str, ...]
    """Names that point to this version."""
    run_id: str
    """MLflow run that made it."""
    tags: Mapping[str, str]
    """Lineage and measures: `data_hash`, `git_commit`, `bits_per_byte.model`, ..."""
    source: str
    """Where the registry keeps its files."""


class Registry:
    """MLflow's model registry."""

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._client = MlflowClient(tracking_uri=tracking_uri)

    def register(self, name: str, folder: Path, *, run_id: str, tags: Mapping[str, str]) -> int:
        """Upload a folder as the next version of a model and return its version.

        A run makes one version, however often this is called for it.

        Raises:
            ConfigError: a file of the folder is, or may hold, a pickle.
            PlatformError: the server does not answer.
        """
        if found := find_pickle(folder):
            raise ConfigError(
                "model_with_pickle", f"{found} is a pickle, which can run code on whoever loads it; export safetensors"
            )
        for model in self.list():
            if model.name == name and model.run_id == run_id:
                return model.version
        with translated(self._uri):
            self._client.log_artifacts(run_id, str(folder), _ARTIFACT_PATH)
            try:
                self._client.create_registered_model(name)
            except RestException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{_ARTIFACT_PATH}"
            made = self._client.create_model_version(
                name, source=source, run_id=run_id, tags=dict(tags), await_creation_for=0
            )
        return int(made.version)

    def set_alias(self, name: str, alias: str, *, version: int) -> None:
        """Point an alias to a version; an alias points to one version at a time.

        Raises:
            NotFound: there is no such model or version.
            PlatformError: the server does not answer.
        """
        self.resolve(name, version=version)
        with translated(self._uri):
            self._client.set_registered_model_alias(name, alias, str(version))

    def resolve(self, name: str, *, version: int | str | None) -> RegisteredModel:
        """Return a version of a model.

        Args:
            name: name of the model.
            version: a number, an alias, or None for the alias `champion` and, without one, the newest.

        Raises:
            NotFound: there is no such model or version; the message lists what exists.
            PlatformError: the server does not answer.
        """
        everything = self.list()
        versions = [model for model in everything if model.name == name]
        if not versions:
            names = ", ".join(sorted({model.name for model in everything})) or "none yet"
            raise NotFound("model_not_found", f"no model {name!r} is registered; registered: {names}")
        if version is None:
            return next((model for model in versions if CHAMPION in model.aliases), versions[0])
        for model in versions:
            if str(version) == str(model.version) or version in model.aliases:
                return model
        known = ", ".join(str(model.version) for model in versions)
        raise NotFound("version_not_found", f"model {name!r} has no version {version}; it has {known}")

    def list(self) -> list[RegisteredModel]:
        """Return all versions of all models, by name, newest first.

        Raises:
            PlatformError: the server does not answer.
        """
        with translated(self._uri):
            aliases: dict[tuple[str, str], list[str]] = {}
            for model in _pages(self._client.search_registered_models):
                for alias, version in model.aliases.items():
                    aliases.setdefault((model.name, str(version)), []).append(alias)
            found = [
                RegisteredModel(
                    name=item.name,
                    version=int(item.version),
                    aliases=tuple(sorted(aliases.get((item.name, str(item.version)), []))),
                    run_id=item.run_id or "",
                    tags=dict(item.tags),
                    source=item.source,
                )
                for item in _pages(self._client.search_model_versions)
            ]
        return sorted(found, key=lambda model: (model.name, -model.version))

    def download(self, model: RegisteredModel, target_dir: Path) -> Path:
        """Return `<target_dir>/<name>/<version>` with the model's files, fetched when it is not there yet.

        The folder appears whole or not at all, and any number of processes may ask for it at once.

        Raises:
            PlatformError: the server does not answer, or does not have the files.
        """
        final = target_dir / model.name / str(model.version)
        if final.exists():
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=".partial-") as partial, translated(self._uri):
            fetched = Path(download_artifacts(artifact_uri=model.source, dst_path=partial, tracking_uri=self._uri))
            try:
                fetched.rename(final)
            except OSError:
                if not final.exists():
                    raise
        return final


def find_pickle(folder: Path) -> Path | None:
    """Return the first file below a folder that is a pickle, or holds one as torch's archives do, or None."""
    return next((path for path in sorted(folder.rglob("*")) if path.is_file() and _is_pickle(path)), None)


def _is_pickle(path: Path) -> bool:
    """Judge by suffix and content.

    Source: pickle's PROTO opcode, protocols 2 to 5. A safetensors header is 8 bytes of length, which may look the same,
    and JSON.
    """
    if path.suffix in PICKLE_SUFFIXES:
        return True
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" and start[8:] == b"{":
        return False
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(Path(name).suffix in PICKLE_SUFFIXES for name in archive.namelist())
    return start[:2] in _PICKLE_MAGIC


def _pages(search: Any) -> list[Any]:
    """Return all pages of one of MLflow's searches."""
    items, token = [], None
    while True:
        page = search(page_token=token)
        items.extend(page)
        token = page.token
        if not token:
            return items
