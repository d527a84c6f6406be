from mlaas.scheduler.live.lifecycle import State
from mlaas.store.workloads import FINAL_STATES


def test_the_store_and_the_scheduler_mean_the_same_by_final() -> None:
    assert set(FINAL_STATES) == {state.value for state in State if state.is_final}
