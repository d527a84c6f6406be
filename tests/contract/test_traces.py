"""A request through the running gateway is one trace, from its caller to its upstreams, without what was said."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mlaas.observability.tracing import Tracing
from mlaas.providers.simulated.server import Simulator
from tests.fakes.servers import Gateway, running_gateway
from tests.fakes.serving import simulating
from tests.fakes.vendors import vendors
from tests.waiting import wait_until

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
PROMPT = "the secret of the house"


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def simulated() -> Iterator[tuple[str, Simulator]]:
    with simulating() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(simulated, exporter, tmp_path_factory) -> Iterator[Gateway]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    config = f"{vendors(simulated[0])}\nmodels:\n  safe: {{targets: [anthropic/sim-500, openai/m]}}\n"
    with running_gateway(tmp_path_factory.mktemp("gateway"), config, tracing=Tracing(provider)) as running:
        yield running


@pytest.mark.parametrize("is_stream", [False, True])
def test_caller_gateway_and_upstreams_share_one_trace(gateway, simulated, exporter, is_stream) -> None:
    exporter.clear()
    simulated[1].seen.clear()
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions",
        json={"model": "safe", "stream": is_stream, "messages": [{"role": "user", "content": PROMPT}]},
        headers={"authorization": f"Bearer {gateway.key}", "traceparent": TRACEPARENT},
        timeout=20,
    )
    assert answer.status_code == 200
    wait_until(lambda: any(span.name == "chat safe" for span in exporter.get_finished_spans()), what="the trace's root")
    spans = exporter.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE_ID}
    [root] = [span for span in spans if span.name == "chat safe"]
    attempts = [span for span in spans if span is not root]
    assert {span.name for span in attempts} == {"attempt anthropic/sim-500", "attempt openai/m"}
    assert {span.parent.span_id for span in attempts} == {root.context.span_id}
    assert root.attributes["mlaas.target"] == "openai/m"
    assert root.attributes["gen_ai.usage.output_tokens"] > 0
    told = {seen.headers["traceparent"] for seen in simulated[1].seen}
    assert told == {f"00-{TRACE_ID}-{span.context.span_id:016x}-01" for span in attempts}
    assert not any(is_said_in(span, PROMPT) or is_said_in(span, gateway.key) for span in spans)


def is_said_in(span: ReadableSpan, text: str) -> bool:
    return text in span.to_json()
