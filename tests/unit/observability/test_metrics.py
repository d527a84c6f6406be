"""Metrics: what is counted, how it reads in Prometheus' format, and how many series there can be."""

from __future__ import annotations

import json
import threading
import urllib.request
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mlaas.observability.definitions import (
    BREAKER,
    DEFINITIONS,
    DURATION,
    IN_FLIGHT,
    JOURNAL_LOST,
    WATCHED,
)
from mlaas.observability.exporter import Exporter
from mlaas.observability.metrics import Metrics
from mlaas.observability.series import Histogram
from mlaas.providers.base import Usage
from mlaas.router.record import RequestRecord

TARGET = "openai/gpt-5-mini"


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(replica="r1")
    metrics.know(models=["fast", "tiny"], targets=[TARGET, "local/tiny"])
    return metrics


def ended(**fields: object) -> RequestRecord:
    given = {"operation": "chat/completions", "model": "fast", "target": TARGET, "status": 200, "duration_ms": 500.0}
    return RequestRecord(id="i", request_id="r", at_s=0.0, **{**given, **fields})


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("replica") == "r1"
            found[sample.name.removeprefix("mlaas_router_"), frozenset(labels.items())] = sample.value
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def test_a_request_is_counted_with_its_tokens_and_cost(metrics: Metrics) -> None:
    usage = Usage(
        input_tokens=10, cache_read_tokens=5, cache_write_tokens=2, cache_write_1h_tokens=1, output_tokens=7,
        reasoning_tokens=3,
    )  # fmt: skip
    for _ in range(2):
        metrics.record(ended(usage=usage, cost_usd=Decimal("0.25")))
    where = {"model": "fast", "target": TARGET}
    assert value(metrics, "requests_total", **where, operation="chat/completions", status="200") == 2
    tokens = {kind: value(metrics, "tokens_total", **where, kind=kind) for kind in
              ("input", "cache_read", "cache_write", "output", "reasoning")}  # fmt: skip
    assert tokens == {"input": 20, "cache_read": 10, "cache_write": 6, "output": 14, "reasoning": 6}
    assert value(metrics, "cost_usd_total", **where) == 0.5


def test_a_stream_gives_first_token_and_the_mean_time_between_tokens(metrics: Metrics) -> None:
    metrics.record(ended(is_stream=True, ttft_ms=100.0, duration_ms=500.0, usage=Usage(output_tokens=11)))
    where = {"operation": "chat/completions", "model": "fast", "target": TARGET}
    assert value(metrics, "time_to_first_token_seconds_sum", **where) == pytest.approx(0.1)
    assert value(metrics, "time_per_output_token_seconds_sum", **where) == pytest.approx(0.04)
    assert value(metrics, "request_duration_seconds_sum", **where) == pytest.approx(0.5)
    assert value(metrics, "request_duration_seconds_bucket", **where, le="0.32") == 0
    assert value(metrics, "request_duration_seconds_bucket", **where, le="0.64") == 1
    assert value(metrics, "request_duration_seconds_bucket", **where, le="+Inf") == 1


def test_one_token_has_no_time_between_tokens(metrics: Metrics) -> None:
    metrics.record(ended(is_stream=True, ttft_ms=100.0, usage=Usage(output_tokens=1)))
    assert not [name for name, _ in samples(metrics) if name.startswith("time_per_output_token_seconds")]


def test_a_whole_answer_has_no_first_token(metrics: Metrics) -> None:
    metrics.record(ended(ttft_ms=100.0, usage=Usage(output_tokens=11)))
    assert not [name for name, _ in samples(metrics) if name.startswith("time_")]


def test_a_failure_does_not_count_into_the_latencies(metrics: Metrics) -> None:
    metrics.record(ended(status=502, error="upstream_failed"))
    assert value(metrics, "errors_total", operation="chat/completions", model="fast", code="upstream_failed") == 1
    assert not [name for name, _ in samples(metrics) if name.startswith("request_duration_seconds")]


def test_a_429_of_our_own_is_a_refusal_and_one_of_an_upstream_is_not(metrics: Metrics) -> None:
    metrics.record(ended(status=429, error="budget_exceeded", target=None))
    metrics.record(ended(status=429, error="upstream_overloaded"))
    refusals = {key: count for key, count in samples(metrics).items() if key[0] == "refusals_total"}
    assert value(metrics, "cost_usd_total", model="fast", target=TARGET) == 0
    assert value(metrics, "cost_usd_total", model="fast", target="") is None
    assert refusals == {("refusals_total", frozenset({"model": "fast", "code": "budget_exceeded"}.items())): 1}


def test_cache_hits_and_waits_are_counted(metrics: Metrics) -> None:
    metrics.record(ended(cache="exact", target=None))
    metrics.record(ended(queue_ms=700.0, model="tiny", target="local/tiny"))
    assert value(metrics, "cache_hits_total", model="fast", kind="exact") == 1
    where = {"operation": "chat/completions", "model": "tiny", "target": "local/tiny"}
    assert value(metrics, "queue_wait_seconds_bucket", **where, le="0.5") == 0
    assert value(metrics, "queue_wait_seconds_bucket", **where, le="1") == 1


def test_what_is_no_call_to_a_model_is_not_counted(metrics: Metrics) -> None:
    metrics.record(ended(operation=""))
    assert samples(metrics) == {}


def test_attempts_tell_retries_from_fallbacks(metrics: Metrics) -> None:
    metrics.count_attempt("local/tiny", outcome="refused")
    metrics.count_attempt("local/tiny", outcome="refused", previous="local/tiny")
    metrics.count_attempt(TARGET, outcome="ok", previous="local/tiny")
    assert value(metrics, "attempts_total", target="local/tiny", outcome="refused") == 2
    assert value(metrics, "attempts_total", target=TARGET, outcome="ok") == 1
    assert value(metrics, "retries_total", target="local/tiny") == 1
    assert value(metrics, "fallbacks_total", target=TARGET) == 1


def test_names_that_callers_make_up_are_one_series(metrics: Metrics) -> None:
    for number in range(50):
        metrics.record(ended(model=f"m{number}", target=f"openai/m{number}"))
        metrics.count_attempt(f"openai/m{number}", outcome="ok")
    where = {"operation": "chat/completions", "model": "other", "target": "other"}
    assert value(metrics, "requests_total", **where, status="200") == 50
    assert value(metrics, "attempts_total", target="other", outcome="ok") == 50


def test_a_name_that_becomes_known_gets_its_own_series(metrics: Metrics) -> None:
    metrics.record(ended(model="new"))
    metrics.know(models=["fast", "new"], targets=[TARGET])
    metrics.record(ended(model="new"))
    where = {"operation": "chat/completions", "target": TARGET, "status": "200"}
    assert value(metrics, "requests_total", **where, model="other") == 1
    assert value(metrics, "requests_total", **where, model="new") == 1


def test_error_codes_without_end_are_bounded(metrics: Metrics) -> None:
    for number in range(3000):
        metrics.record(ended(status=502, error=f"code{number}"))
    errors = {key: count for key, count in samples(metrics).items() if key[0] == "errors_total"}
    assert len(errors) <= 2001
    assert sum(errors.values()) == 3000


def test_watched_metrics_are_read_at_each_scrape(metrics: Metrics) -> None:
    state = {("http://a",): 2.0}
    metrics.watch(BREAKER, lambda: state)
    metrics.watch(IN_FLIGHT, lambda: {(): 3.0})
    assert value(metrics, "breaker_state", origin="http://a") == 2
    assert value(metrics, "requests_in_flight") == 3
    state[("http://a",)] = 0.0
    assert value(metrics, "breaker_state", origin="http://a") == 0


def test_a_watched_metric_that_nobody_gives_is_left_out(metrics: Metrics) -> None:
    assert JOURNAL_LOST in WATCHED
    assert b"journal_lost" not in metrics.render()


@given(values=st.lists(st.floats(0, 1000), max_size=50))
def test_a_histogram_counts_each_value_once_in_the_first_bucket_that_holds_it(values: list[float]) -> None:
    histogram = Histogram(DURATION)
    for each in values:
        histogram.observe(each)
    assert sum(histogram.counts) == len(values)
    for index, bound in enumerate(histogram.bounds):
        assert sum(histogram.counts[: index + 1]) == sum(each <= bound for each in values)


def test_buckets_ascend_and_names_are_unique() -> None:
    assert len({definition.name for definition in DEFINITIONS}) == len(DEFINITIONS)
    for definition in DEFINITIONS:
        assert list(definition.buckets) == sorted(set(definition.buckets))


def test_each_replica_serves_its_own_port_and_announces_it(metrics: Metrics, tmp_path: Path) -> None:
    metrics.record(ended())
    exporter = Exporter(metrics, folder=tmp_path / "metrics", replica="r1")
    port = exporter.start()
    try:
        [announced] = json.loads((tmp_path / "metrics" / "r1.json").read_text())
        assert announced["targets"] == [f"127.0.0.1:{port}"]
        with urllib.request.urlopen(f"http://{announced['targets'][0]}/metrics", timeout=5) as answer:
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert b"mlaas_router_requests_total{" in answer.read()
    finally:
        exporter.stop()
    assert list((tmp_path / "metrics").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_and_leaves_nothing_running(metrics: Metrics, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    exporter = Exporter(metrics, folder=tmp_path / "file" / "metrics", replica="r1")
    with pytest.raises(OSError, match="file"):
        exporter.start()
    exporter.stop()
    exporter.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]


def test_a_dead_replicas_announcement_is_taken_away_and_a_live_ones_stays(metrics: Metrics, tmp_path: Path) -> None:
    (tmp_path / "dead.json").write_text("[]")
    first, second = (Exporter(metrics, folder=tmp_path, replica=name) for name in ("a", "b"))
    first.start()
    second.start()
    try:
        assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json"}
    finally:
        first.stop()
        second.stop()
