"""The verbs that processes of the cluster may call."""

from __future__ import annotations

import inspect

import pytest
import ray

from mlaas.errors import AdmissionError, PlatformError
from mlaas.scheduler.live.service import SchedulerService
from mlaas.scheduler.on_ray.client import VERBS, BlockingClient, SchedulerClient

OF_ITS_PROCESS = {"start", "run", "stop", "command_ended"}


def test_every_verb_of_the_service_can_be_called_and_no_other():
    public = {
        name
        for name, _ in inspect.getmembers(SchedulerService, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert public - OF_ITS_PROCESS == VERBS
    for client in (BlockingClient(), SchedulerClient()):
        assert all(callable(getattr(client, verb)) for verb in VERBS)
        with pytest.raises(AttributeError):
            client.run()


class Broken:
    """An actor whose calls end as Ray says."""

    def __init__(self, error: Exception) -> None:
        self.call = self
        self.error = error

    def remote(self, *_args: object, **_kwargs: object) -> object:
        raise self.error


def test_an_error_of_the_service_is_its_own_and_any_other_says_to_come_back():
    refused = ray.exceptions.RayTaskError("call", "traceback", AdmissionError("too_large", "no such room"))
    client = BlockingClient()
    client._actor = Broken(refused.as_instanceof_cause())
    with pytest.raises(AdmissionError, match="no such room"):
        client.get("w")
    client._actor = Broken(ray.exceptions.ActorUnavailableError("away", b"0" * 16))
    with pytest.raises(PlatformError, match="does not answer") as caught:
        client.get("w")
    assert caught.value.code == "scheduler_unreachable"
    assert caught.value.retry_after_s
