from mlaas.scheduler.live.lifecycle import State
from mlaas.store.workloads import ACTIVE_STATES


def test_the_store_and_the_scheduler_mean_the_same_by_active() -> None:
    assert set(ACTIVE_STATES) == {state.value for state in State if not state.is_final}
