import os
import signal

import pytest

from mlaas.errors import PlatformError
from mlaas.platform import standalone
from mlaas.platform.parts import Probe
from mlaas.platform.standalone import PATIENT_LOOKS, RESTART_LOOKS


class Over(Exception):
    """The script of a part has come to its end."""


class ScriptedPart:
    """A part whose looks are given, and which starts at once unless it is told to fail."""

    start_timeout_s = 1.0

    def __init__(self, name, looks, *, can_start=True):
        self.name = name
        self.num_starts = 0
        self._looks = iter(looks)
        self._can_start = can_start

    def probe(self):
        is_up = next(self._looks, None)
        if is_up is None:
            raise Over
        return Probe(part=self.name, ok=is_up, detail="")

    def start(self):
        self.num_starts += 1
        if not self._can_start:
            raise PlatformError("ray_start_failed", "no room")


@pytest.fixture
def keep_up(monkeypatch):
    monkeypatch.setattr(standalone, "LOOK_S", 0.0)

    def run(head, gateway):
        told = []
        with pytest.raises(Over):
            standalone._keep_up(head, gateway, progress=told.append)
        return [(probe.part, probe.ok) for probe in told]

    return run


def test_a_part_that_does_not_answer_once_or_twice_is_left_alone(keep_up):
    head = ScriptedPart("head", [True, *[False] * (PATIENT_LOOKS - 1), True])
    gateway = ScriptedPart("gateway", [True, True])
    assert keep_up(head, gateway) == []
    assert (head.num_starts, gateway.num_starts) == (0, 0)


def test_a_dead_head_is_started_again_and_the_gateway_put_on_it(keep_up):
    head = ScriptedPart("head", [*[False] * PATIENT_LOOKS, True, True])
    gateway = ScriptedPart("gateway", [True, True])
    assert keep_up(head, gateway) == [("head", False), ("gateway", True)]
    assert (head.num_starts, gateway.num_starts) == (1, 1)


def test_a_gateway_that_stays_down_gets_a_new_head_in_the_end(keep_up):
    head = ScriptedPart("head", [True] * (RESTART_LOOKS + 1))
    gateway = ScriptedPart("gateway", [False] * RESTART_LOOKS)
    assert keep_up(head, gateway) == [("gateway", False)]
    assert (head.num_starts, gateway.num_starts) == (1, RESTART_LOOKS // PATIENT_LOOKS)


def test_what_cannot_be_started_is_tried_again(keep_up):
    head = ScriptedPart("head", [False] * 2 * PATIENT_LOOKS, can_start=False)
    gateway = ScriptedPart("gateway", [])
    assert keep_up(head, gateway) == [("head", False)] * 3
    assert head.num_starts == 2


def test_a_signal_ends_the_block_and_none_interrupts_the_cleaning():
    cleaned = []

    def clean_up():
        os.kill(os.getpid(), signal.SIGINT)
        cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with standalone._until_told(clean_up):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not end the block")
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) == before
