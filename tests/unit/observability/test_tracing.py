"""Traces: one for each request, joined to its caller's and to its upstreams', without a word of what was said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from mlaas.observability.tracing import Tracing, build_tracing
from mlaas.providers.base import Usage
from mlaas.router.record import RequestRecord

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Iterator[Tracing]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    yield tracing
    tracing.close()


def ended(**fields: object) -> RequestRecord:
    given = {"operation": "chat/completions", "model": "fast", "target": "gemini/gemini-3.6-flash", "status": 200}
    return RequestRecord(id="i", request_id="r", at_s=0.0, **{**given, **fields})


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_and_its_attempts_are_one_trace_of_the_callers(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    request = tracing.begin({"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    first = request.attempt("local/tiny", reason="first target up")
    first.end(failure="refused", message="no connection")
    second = request.attempt("gemini/gemini-3.6-flash", reason="local/tiny failed: refused")
    second.end()
    usage = Usage(input_tokens=5, cache_read_tokens=2, output_tokens=3)
    request.end(ended(usage=usage, cost_usd=Decimal("0.25"), tenant="acme", key_id="k", reason="fell back"))
    spans = by_name(exporter)
    root, failed = spans["chat fast"], spans["attempt local/tiny"]
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE_ID}
    assert f"{root.parent.span_id:016x}" == "b7ad6b7169203331"
    assert (root.kind, failed.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert failed.parent.span_id == root.context.span_id
    assert failed.status.status_code is StatusCode.ERROR
    assert dict(failed.attributes) == {
        "gen_ai.provider.name": "local",
        "gen_ai.request.model": "tiny",
        "mlaas.target": "local/tiny",
        "mlaas.route.reason": "first target up",
        "error.type": "refused",
    }
    assert spans["attempt gemini/gemini-3.6-flash"].attributes["gen_ai.provider.name"] == "gcp.gemini"
    assert dict(root.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "fast",
        "gen_ai.response.model": "gemini-3.6-flash",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.output_tokens": 3,
        "http.response.status_code": 200,
        "mlaas.id": "i",
        "mlaas.request_id": "r",
        "mlaas.tenant": "acme",
        "mlaas.key_id": "k",
        "mlaas.target": "gemini/gemini-3.6-flash",
        "mlaas.route.reason": "fell back",
        "mlaas.cost_usd": 0.25,
    }
    assert root.status.status_code is StatusCode.UNSET


def test_an_upstream_is_sent_its_attempts_own_place_in_the_trace(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    request = tracing.begin({"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    attempts = [request.attempt("local/tiny", reason="x") for _ in range(2)]
    headers = [attempt.headers for attempt in attempts]
    for attempt in attempts:
        attempt.end()
    spans = exporter.get_finished_spans()
    sent = [f"00-{TRACE_ID}-{span.context.span_id:016x}-01" for span in spans]
    assert [each["traceparent"] for each in headers] == sent
    assert {each["tracestate"] for each in headers} == {"vendor=1"}


@pytest.mark.parametrize("headers", [{}, {"traceparent": "nonsense"}, {"traceparent": "00-" + "0" * 32 + "-1-01"}])
def test_without_a_callers_trace_one_begins(
    tracing: Tracing, exporter: InMemorySpanExporter, headers: dict[str, str]
) -> None:
    tracing.begin(headers).end(ended())
    [root] = exporter.get_finished_spans()
    assert root.parent is None
    assert root.context.trace_id


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (502, "upstream_failed", StatusCode.ERROR),
        (200, "upstream_closed", StatusCode.ERROR),
        (429, "budget_exceeded", StatusCode.UNSET),
        (499, "client_gone", StatusCode.UNSET),
    ],
)
def test_an_error_has_its_code_and_only_our_side_of_it_fails_the_span(
    tracing: Tracing, exporter: InMemorySpanExporter, status: int, error: str, code: StatusCode
) -> None:
    tracing.begin({}).end(ended(status=status, error=error, target=None))
    [root] = exporter.get_finished_spans()
    assert root.attributes["error.type"] == error
    assert root.status.status_code is code


def test_a_request_that_is_not_sampled_passes_that_on() -> None:
    tracing = Tracing(TracerProvider(sampler=ALWAYS_OFF))
    request = tracing.begin({"traceparent": TRACEPARENT})
    attempt = request.attempt("local/tiny", reason="x")
    attempt.end()
    request.end(ended())
    assert attempt.headers["traceparent"].startswith(f"00-{TRACE_ID}-")
    assert attempt.headers["traceparent"].endswith("-00")


class Collector(HTTPServer):
    """An OTLP receiver that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[ExportTraceServiceRequest] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("given", "service"), [(None, "mlaas-gateway"), ("edge", "edge")])
def test_spans_go_where_the_environment_says(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, given: str | None, service: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    if given:
        monkeypatch.setenv("OTEL_SERVICE_NAME", given)
    tracing = build_tracing()
    request = tracing.begin({"traceparent": TRACEPARENT})
    request.attempt("local/tiny", reason="x").end()
    request.end(ended())
    tracing.close()
    [group] = [group for message in collector.received for group in message.resource_spans]
    names = {attribute.key: attribute.value.string_value for attribute in group.resource.attributes}
    assert names["service.name"] == service
    spans = [span for scope in group.scope_spans for span in scope.spans]
    assert {span.name for span in spans} == {"attempt local/tiny", "chat fast"}
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
