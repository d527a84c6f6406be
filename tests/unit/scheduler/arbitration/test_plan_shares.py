"""What is booked, run and given back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlaas.scheduler.arbitration.plan import plan_shares
from mlaas.scheduler.arbitration.ports import ReplicaLease
from mlaas.scheduler.arbitration.types import ReplicaState, Share
from mlaas.scheduler.types import Resources

READY, STARTING, FAILED = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.FAILED
M = Share(name="m", version=2, worker=Resources(gpus=1), floor=1, ceiling=4)


def lease(name, *, version=2, is_floor=False, sequence=0, node="n", is_yielding=False):
    return ReplicaLease(
        workload_id=name, deployment="m", version=version, is_floor=is_floor, sequence=sequence, node=node,
        is_yielding=is_yielding,
    )  # fmt: skip


def ids(leases):
    return {each.workload_id for each in leases}


def test_what_lacks_is_asked_for_the_floor_first():
    plan = plan_shares({"m": M}, {"m": 3}, [], {})
    assert plan.submit == ((M, True), (M, False), (M, False))


def test_what_waits_is_not_asked_for_again_and_does_not_run():
    plan = plan_shares({"m": M}, {"m": 2}, [lease("a", is_floor=True), lease("b", node=None)], {"a": READY})
    assert (plan.submit, ids(plan.run), plan.give_back) == ((), {"a"}, ())


def test_a_machine_is_given_back_once_its_replica_has_gone():
    leases = [lease("a", is_floor=True), lease("b", sequence=1), lease("c", sequence=2)]
    plan = plan_shares({"m": M}, {"m": 2}, leases, {"a": READY, "b": READY, "c": READY})
    assert (ids(plan.run), plan.give_back) == ({"a", "b"}, ())
    plan = plan_shares({"m": M}, {"m": 2}, leases, {"a": READY, "b": READY})
    assert ids(plan.give_back) == {"c"}


def test_what_waits_is_given_up_before_what_runs():
    leases = [lease("a", is_floor=True), lease("b", sequence=1, node=None), lease("c", sequence=2)]
    plan = plan_shares({"m": M}, {"m": 2}, leases, {"a": READY, "c": READY})
    assert (ids(plan.run), ids(plan.give_back)) == ({"a", "c"}, {"b"})


def test_a_replica_that_is_told_to_yield_stops_and_then_gives_back():
    leases = [lease("a", is_floor=True), lease("b", is_yielding=True)]
    plan = plan_shares({"m": M}, {"m": 2}, leases, {"a": READY, "b": READY})
    assert (plan.submit, ids(plan.run), plan.give_back) == ((), {"a"}, ())
    assert ids(plan_shares({"m": M}, {"m": 2}, leases, {"a": READY}).give_back) == {"b"}


def test_a_broken_replica_is_stopped_and_another_machine_asked_for():
    leases = [lease("a", is_floor=True), lease("b", sequence=1)]
    plan = plan_shares({"m": M}, {"m": 2}, leases, {"a": READY, "b": FAILED}, broken={"b"})
    assert (plan.submit, ids(plan.run), plan.give_back) == (((M, False),), {"a"}, ())
    leases.append(lease("c", sequence=2))
    plan = plan_shares({"m": M}, {"m": 2}, leases, {"a": READY}, broken={"b"})
    assert (plan.submit, ids(plan.run), ids(plan.give_back)) == ((), {"a", "c"}, {"b"})


def test_an_older_version_stays_until_the_floor_of_the_new_one_answers():
    leases = [lease("old", version=1, is_floor=True), lease("new", is_floor=True, sequence=1)]
    plan = plan_shares({"m": M}, {"m": 1}, leases, {"old": READY, "new": STARTING})
    assert ids(plan.run) == {"old", "new"}
    plan = plan_shares({"m": M}, {"m": 1}, leases, {"old": READY, "new": READY})
    assert ids(plan.run) == {"new"}


def test_what_is_no_longer_deployed_goes():
    plan = plan_shares({}, {}, [lease("a")], {"a": READY})
    assert (plan.run, plan.give_back) == ((), ())
    assert ids(plan_shares({}, {}, [lease("a")], {}).give_back) == {"a"}


leases = st.lists(
    st.builds(
        lease,
        st.integers(0, 50).map(str),
        version=st.sampled_from([1, 2]),
        is_floor=st.booleans(),
        sequence=st.integers(0, 50),
        node=st.sampled_from([None, "n"]),
        is_yielding=st.booleans(),
    ),
    unique_by=lambda each: each.workload_id,
)


names = st.integers(0, 50).map(str)


@given(leases, st.integers(1, 4), st.dictionaries(names, st.sampled_from(ReplicaState)), st.sets(names))
def test_nothing_runs_without_a_machine_and_no_machine_goes_from_under_a_replica(found, wish, present, broken):
    plan = plan_shares({"m": M}, {"m": wish}, found, present, broken=broken)
    assert all(each.node is not None and not each.is_yielding for each in plan.run)
    assert not ids(plan.give_back) & (ids(plan.run) | present.keys())
    current = [each for each in found if each.version == 2 and each.workload_id not in broken]
    assert len(plan.submit) == max(0, wish - len(current))
