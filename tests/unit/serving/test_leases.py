from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mlaas.serving.leases import LEASE_S, Leases, expire, renew, withdraw
from mlaas.serving.types import Endpoint


def endpoint(replica_id: str, *, port: int = 1, model: str = "tiny") -> Endpoint:
    return Endpoint(model=model, url=f"http://10.0.0.5:{port}", replica_id=replica_id, api_key="key")


replica_ids = st.sampled_from(["a", "b", "c"])


class LeaseMachine(RuleBasedStateMachine):
    """The leases against the plainest model: for each replica, what it said last and when."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.leases = Leases()
        self.said: dict[str, tuple[float, Endpoint]] = {}

    @rule(replica_id=replica_ids, port=st.integers(1, 3))
    def heartbeat(self, replica_id, port):
        self.leases = renew(self.leases, endpoint(replica_id, port=port), now_s=self.now_s)
        self.said[replica_id] = (self.now_s, endpoint(replica_id, port=port))

    @rule(replica_id=replica_ids)
    def leave(self, replica_id):
        self.leases = withdraw(self.leases, replica_id)
        self.said.pop(replica_id, None)

    @rule(seconds=st.floats(0, 2 * LEASE_S))
    def time_passes(self, seconds):
        self.now_s += seconds

    @invariant()
    def exactly_the_fresh_are_up(self):
        self.leases = expire(self.leases, now_s=self.now_s)
        fresh = {said for at_s, said in self.said.values() if at_s + LEASE_S > self.now_s}
        assert set(self.leases.endpoints) == fresh
        assert len(self.leases.endpoints) == len(fresh)

    @invariant()
    def the_next_expiry_is_ahead(self):
        next_s = self.leases.next_expiry_s
        assert next_s is None or self.now_s < next_s <= self.now_s + LEASE_S


TestLeaseMachine = LeaseMachine.TestCase


@given(st.permutations(["a", "b", "c"]))
def test_the_order_of_endpoints_does_not_depend_on_who_reported_first(order):
    leases = Leases()
    for replica_id in order:
        leases = renew(leases, endpoint(replica_id), now_s=0.0)
    assert [up.replica_id for up in leases.endpoints] == ["a", "b", "c"]


def test_an_endpoint_does_not_print_its_key():
    assert "key" not in repr(endpoint("a")).replace("api_key", "")
