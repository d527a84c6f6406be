"""A recorded snapshot gives the decision that was made, whatever has happened since."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.errors import InvalidRequest
from mlaas.scheduler.decision.cycle import decide
from mlaas.scheduler.decision.ordering import POLICIES
from mlaas.scheduler.estimates import reported
from mlaas.scheduler.explanations.recording import Recorder, decode_snapshot, encode_snapshot
from mlaas.scheduler.ledger import Ledger
from mlaas.scheduler.types import Gang, Node, Place, Queue, Resources, Workload
from tests.fakes.worlds import POLICY, apply, ledgers


@given(ledger=ledgers, policy=st.sampled_from(sorted(POLICIES)))
def test_a_recorded_snapshot_is_decided_the_same(ledger: Ledger, policy: str) -> None:
    live = ledger.snapshot()
    recorded = encode_snapshot(live)
    assert decide(decode_snapshot(recorded), POLICIES[policy]) == decide(live, POLICIES[policy])


@given(ledger=ledgers)
def test_a_recording_is_written_again_as_it_was_read(ledger: Ledger) -> None:
    recorded = encode_snapshot(ledger.snapshot())
    assert encode_snapshot(decode_snapshot(recorded)) == recorded


@given(ledger=ledgers)
def test_every_column_comes_back(ledger: Ledger) -> None:
    snapshot = ledger.snapshot()
    if len(snapshot.running):
        snapshot.running.believe(snapshot.running.ids[0], reported(30.0, attained_s=10.0))
    again = decode_snapshot(encode_snapshot(snapshot))
    for before, after in ((snapshot.pending, again.pending), (snapshot.running, again.running)):
        assert after.ids == before.ids
        assert after.workloads == before.workloads
        for name in set(before.floats) - {"estimate_s"}:
            assert after.floats_of(name).tolist() == before.floats_of(name).tolist(), name
        for name in set(before.ints) - {"gang"}:
            assert after.ints_of(name).tolist() == before.ints_of(name).tolist(), name
    assert again.cluster.cells.tolist() == snapshot.cluster.cells.tolist()
    assert again.average_share.tolist() == snapshot.average_share.tolist()


@given(ledger=ledgers)
def test_a_recorder_keeps_the_world_before_the_decision(ledger: Ledger) -> None:
    recorder = Recorder(most=3)
    for _ in range(5):
        decision = decide(ledger.snapshot(), POLICY)
        recorder.record(ledger.snapshot(), decision, policy=POLICY.name)
        apply(ledger, decision)
        ledger.advance(ledger.now_s + 500.0)
    kept = recorder.recordings()
    assert len(kept) <= 3
    for recording in kept:
        assert recording.decision.actions
        assert decide(decode_snapshot(recording.snapshot), POLICIES[recording.policy]) == recording.decision


def test_a_ledger_of_a_snapshot_goes_on_by_itself() -> None:
    ledger = Ledger([Node("n", Resources(gpus=2.0))], [Queue("default")])
    ledger.submit(Workload("w", Gang(Resources(gpus=1.0)), 0.0))
    trial = Ledger.of(ledger.snapshot())
    apply(trial, decide(trial.snapshot(), POLICY))
    trial.submit(Workload("x", Gang(Resources(gpus=1.0)), 0.0))
    assert (trial.running.ids, trial.pending.ids) == (["w"], ["x"])
    assert (ledger.running.ids, ledger.pending.ids) == ([], ["w"])
    assert ledger.cluster.cells.tolist() == [[10_000, 10_000]]
    assert [
        action.workload_id for action in decide(ledger.snapshot(), POLICY).actions if isinstance(action, Place)
    ] == ["w"]


@pytest.mark.parametrize("recorded", [b"", b"{}", b"[1", b'{"format": "x"}'])
def test_what_is_no_recording_is_refused(recorded: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no recorded snapshot"):
        decode_snapshot(recorded)


def test_a_recording_of_another_format_is_refused() -> None:
    recorded = encode_snapshot(Ledger([Node("n", Resources(gpus=2.0))], [Queue("default")]).snapshot())
    with pytest.raises(InvalidRequest, match="format 99"):
        decode_snapshot(json.dumps({**json.loads(recorded), "format": 99}).encode())
