"""What a request would cost at a candidate and how long it would take: arithmetic that all policies share."""

from __future__ import annotations

from mlaas.router.types import Candidate, Need, Slo

_USUAL_INPUT_TOKENS = 1000
_USUAL_OUTPUT_TOKENS = 250
_FULL_CACHE_WEIGHT = 6.0
_FULL_CACHE_FROM = 0.5


def input_tokens(need: Need) -> int:
    """Return the estimated prompt, or a usual one."""
    return need.input_tokens or _USUAL_INPUT_TOKENS


def output_tokens(need: Need) -> int:
    """Return the estimated answer, or a usual one."""
    return need.output_tokens or _USUAL_OUTPUT_TOKENS


def expected_cost_usd(candidate: Candidate, need: Need) -> float | None:
    """Return what this request would cost there in US dollars; None when the price is not known."""
    price = candidate.offer.price
    if price is None:
        return None
    return input_tokens(need) * price.input_usd + output_tokens(need) * price.output_usd


def show_cost(cost_usd: float | None, need: Need) -> str:
    """Return a request's cost as dollars per million of its tokens."""
    if cost_usd is None:
        return "no price"
    return f"${cost_usd * 1e6 / (input_tokens(need) + output_tokens(need)):,.2f}/M"


def num_running(candidate: Candidate) -> int:
    """Return the requests that the address works on."""
    engine = candidate.engine
    if engine is None:
        return candidate.num_outstanding
    return max(0, engine.num_running + (0 if engine.num_waiting else candidate.num_since_poll))


def num_waiting(candidate: Candidate) -> int:
    """Return the requests that wait for the address, in its engine and here.

    What was sent since the engine was last asked waits too if something waited then.
    """
    engine = candidate.engine
    if engine is None or not engine.num_waiting:
        return candidate.num_queued
    return candidate.num_queued + max(0, engine.num_waiting + candidate.num_since_poll)


def load(candidate: Candidate) -> float:
    """Return how busy an address is: the requests there, and more for those that wait behind a full KV cache.

    A queue drains slowly when the cache is what is short: each waiting request counts up to four times. What this
    gateway replica has under way there is a floor that no late reading can hide.

    Source: vLLM's own choice among data-parallel engines (v1/engine/core_client.py, `get_core_engine_for_request`).
    """
    engine = candidate.engine
    if engine is None:
        return float(candidate.num_outstanding)
    waiting = num_waiting(candidate)
    num = max(candidate.num_outstanding, waiting + num_running(candidate))
    return num + waiting * _FULL_CACHE_WEIGHT * max(0.0, engine.kv_usage - _FULL_CACHE_FROM)


def predicted_ttft_s(candidate: Candidate) -> float | None:
    """Return when the first token would come; None when there is no recent answer to judge by.

    With an engine: the time without a queue, plus the queue over the speed at which it drains, which is
    `num_running / duration_s` by Little's law. Without one its queue is in the median that was seen.

    Source: J. D. C. Little, "A Proof for the Queuing Formula L = lambda W", Operations Research 9(3), 1961.
    """
    pace = candidate.pace
    if pace is None:
        return None
    base_s = pace.ttft_p50_s if candidate.engine is None else pace.ttft_idle_s
    return base_s + num_waiting(candidate) * pace.duration_s / max(1, num_running(candidate))


def predicted_end_s(candidate: Candidate, need: Need) -> float | None:
    """Return when the whole answer would be there; None when there is no recent answer to judge by."""
    ttft_s, pace = predicted_ttft_s(candidate), candidate.pace
    if ttft_s is None or pace is None:
        return None
    return ttft_s + (output_tokens(need) / pace.tokens_per_s if pace.tokens_per_s else 0.0)


def keeps(slo: Slo | None, candidate: Candidate) -> bool:
    """Return whether the address is predicted to keep the SLO; one without data is given the benefit of the doubt."""
    if slo is None or candidate.pace is None or (slo.ttft_s is None and slo.tokens_per_s is None):
        return True
    ttft_s, speed = predicted_ttft_s(candidate), candidate.pace.tokens_per_s
    is_late = slo.ttft_s is not None and ttft_s is not None and ttft_s > slo.ttft_s
    is_slow = slo.tokens_per_s is not None and 0 < speed < slo.tokens_per_s
    return not (is_late or is_slow)


def quality(candidate: Candidate, task: str) -> float | None:
    """Return the score for a task, or over all tasks when there is none for it; None when it was never measured."""
    scores = candidate.offer.quality
    return scores.get(task, scores.get(""))
