"""Training runs as MLflow sees them: one run for each run folder, found again by name when a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from mlaas.tracking.server import translated

_FOLDER_TAG = "mlaas.run_folder"
_BATCH = 500
"""Metrics of one request. Source: MLflow's REST API, limits of runs/log-batch (1000 in all)."""


class RunLog:
    """One run on MLflow's server. Every method raises PlatformError when the server fails."""

    def __init__(self, tracking_uri: str, *, run_id: str) -> None:
        self._uri = tracking_uri
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self.run_id = run_id

    @classmethod
    def open(cls, tracking_uri: str, *, experiment: str, folder: Path) -> RunLog:
        """Return the run of a folder, continued if there is one.

        Raises:
            PlatformError: the server does not answer.
        """
        client = MlflowClient(tracking_uri=tracking_uri)
        with translated(tracking_uri):
            found = client.get_experiment_by_name(experiment)
            experiment_id = found.experiment_id if found else client.create_experiment(experiment)
            of_folder = f"tags.`{_FOLDER_TAG}` = '{folder}'"
            if known := client.search_runs([experiment_id], filter_string=of_folder, max_results=1):
                client.update_run(known[0].info.run_id, status="RUNNING")
                return cls(tracking_uri, run_id=known[0].info.run_id)
            name = f"{folder.parent.name}/{folder.name}"
            run = client.create_run(experiment_id, run_name=name, tags={_FOLDER_TAG: str(folder)})
        return cls(tracking_uri, run_id=run.info.run_id)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters. A parameter never changes: recording it again must give the same value."""
        with translated(self._uri):
            self._client.log_batch(self.run_id, params=[Param(key, str(value)) for key, value in params.items()])

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags, over those of the same name."""
        with translated(self._uri):
            self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """Record values of metrics, each with its own step and time in milliseconds; equal ones are kept once."""
        with translated(self._uri):
            for start in range(0, len(metrics), _BATCH):
                self._client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])

    def log_files(self, folder: Path) -> None:
        """Upload the files of a folder."""
        with translated(self._uri):
            self._client.log_artifacts(self.run_id, str(folder))

    def finish(self, *, failed: bool = False) -> None:
        """Mark the run as ended."""
        with translated(self._uri):
            self._client.set_terminated(self.run_id, status="FAILED" if failed else "FINISHED")
