"""Training runs as MLflow sees them: one run for each run folder, found again by name when a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mlaas.errors import PlatformError

_FOLDER_TAG = "mlaas.run_folder"
_BATCH = 500
"""Metrics of one request. Source: MLflow's REST API, limits of runs/log-batch (1000 in all)."""


class RunLog:
    """One run on MLflow's server."""

    def __init__(self, client: MlflowClient, *, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    @classmethod
    def open(cls, tracking_uri: str, *, experiment: str, folder: Path) -> RunLog:
        """Return the run of a folder, continued if there is one.

        Raises:
            PlatformError: the server does not answer.
        """
        client = MlflowClient(tracking_uri=tracking_uri)
        try:
            found = client.get_experiment_by_name(experiment)
            experiment_id = found.experiment_id if found else client.create_experiment(experiment)
            known = client.search_runs(
                [experiment_id], filter_string=f"tags.`{_FOLDER_TAG}` = '{folder}'", max_results=1
            )
            if known:
                client.update_run(known[0].info.run_id, status="RUNNING")
                return cls(client, run_id=known[0].info.run_id)
            tags = {_FOLDER_TAG: str(folder)}
            run = client.create_run(experiment_id, run_name=f"{folder.parent.name}/{folder.name}", tags=tags)
        except MlflowException as error:
            raise PlatformError(
                "tracking_unavailable", f"MLflow at {tracking_uri} does not answer: {error.message}; run `mlaas doctor`"
            ) from error
        return cls(client, run_id=run.info.run_id)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters. A parameter never changes: recording it again must give the same value."""
        self._client.log_batch(self.run_id, params=[Param(key, str(value)) for key, value in params.items()])

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags, over those of the same name."""
        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """Record values of metrics, each with its own step and time in milliseconds."""
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])

    def log_files(self, folder: Path, *, artifact_path: str | None = None) -> None:
        """Upload the files of a folder."""
        self._client.log_artifacts(self.run_id, str(folder), artifact_path)

    def finish(self, *, failed: bool = False) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self.run_id, status="FAILED" if failed else "FINISHED")
