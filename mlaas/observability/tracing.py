"""One OpenTelemetry trace for each request: a span for the request, and one below it for each attempt at an upstream.

Names and attributes are those of OpenTelemetry's GenAI conventions, and `mlaas.*` for what they do not have; never a
prompt, an answer or a key's secret. A caller's W3C `traceparent` is continued, and each upstream gets its attempt's.

Where spans go, and how many are kept, is said by OpenTelemetry's own environment variables (`OTEL_EXPORTER_OTLP_*`,
`OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`). Without an endpoint nobody builds a `Tracing`, and a request pays nothing.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ and https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SERVICE_NAME = "mlaas-gateway"
"""`service.name` of the spans, unless `OTEL_SERVICE_NAME` says otherwise."""

_OPERATIONS = {
    "chat/completions": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
_PROVIDERS = {"gemini": "gcp.gemini", "xai": "x_ai"}
_PROPAGATOR = TraceContextTextMapPropagator()


class TracedUsage(Protocol):
    """The tokens of one answer."""

    @property
    def prompt_tokens(self) -> int:
        """All that was read."""

    @property
    def cache_read_tokens(self) -> int:
        """Read from the provider's cache."""

    @property
    def output_tokens(self) -> int:
        """Written."""


class TracedRequest(Protocol):
    """What a trace says of a request at its end; `mlaas.router.record.RequestRecord` is one."""

    @property
    def id(self) -> str:
        """Ours."""

    @property
    def request_id(self) -> str:
        """The caller's."""

    @property
    def operation(self) -> str:
        """Path below `/v1/`."""

    @property
    def model(self) -> str | None:
        """What the caller asked for."""

    @property
    def target(self) -> str | None:
        """Who answered."""

    @property
    def tenant(self) -> str | None:
        """Who pays."""

    @property
    def key_id(self) -> str | None:
        """Public name of the key."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def error(self) -> str | None:
        """Code of the error that the caller got."""

    @property
    def reason(self) -> str | None:
        """Why this target."""

    @property
    def cache(self) -> str:
        """Kind of cache that answered."""

    @property
    def usage(self) -> TracedUsage | None:
        """Tokens."""

    @property
    def cost_usd(self) -> Decimal | None:
        """Dollars."""


class AttemptTrace:
    """The span of one attempt.

    Attributes:
        headers: what the upstream is sent, so that its own spans join the trace.
    """

    __slots__ = ("_span", "headers")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.headers: dict[str, str] = {}
        _PROPAGATOR.inject(self.headers, context=trace.set_span_in_context(span, Context()))

    def end(self, *, failure: str | None = None, message: str = "") -> None:
        """End the attempt.

        Args:
            failure: kind of the failure; None when it succeeded.
            message: what happened, without anything of the prompt or the answer.
        """
        if failure is not None:
            self._span.set_attribute("error.type", failure)
            self._span.set_status(Status(StatusCode.ERROR, message or None))
        self._span.end()


class RequestTrace:
    """The span of one request, and the parent of its attempts."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: trace.Tracer, parent: Context) -> None:
        self._tracer = tracer
        self._span = tracer.start_span("request", context=parent, kind=SpanKind.SERVER)

    def attempt(self, target: str, *, reason: str) -> AttemptTrace:
        """Begin an attempt at a target.

        Args:
            target: `provider/model`.
            reason: why this one.
        """
        provider, _, model = target.partition("/")
        attributes = {
            "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
            "gen_ai.request.model": model,
            "mlaas.target": target,
            "mlaas.route.reason": reason,
        }
        context = trace.set_span_in_context(self._span, Context())
        return AttemptTrace(
            self._tracer.start_span(f"attempt {target}", context=context, kind=SpanKind.CLIENT, attributes=attributes)
        )

    def end(self, request: TracedRequest) -> None:
        """End the request's span with what is known by then."""
        span = self._span
        if span.is_recording():
            operation = _OPERATIONS.get(request.operation, request.operation)
            span.update_name(f"{operation} {request.model or ''}".strip() or "request")
            for name, value in _attributes(request, operation).items():
                if value is not None:
                    span.set_attribute(name, value)
            if request.error is not None:
                span.set_attribute("error.type", request.error)
            if request.status >= 500 or (request.status == 200 and request.error is not None):
                span.set_status(Status(StatusCode.ERROR, request.error))
        span.end()


class Tracing:
    """Makes the traces of one process.

    Args:
        provider: OpenTelemetry's, with its exporters; closed with this object.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("mlaas.router")

    def begin(self, headers: Mapping[str, str]) -> RequestTrace:
        """Begin a request's trace, or continue its caller's.

        Args:
            headers: the request's `traceparent` and `tracestate`, as far as it has them; a malformed one is as none.
        """
        return RequestTrace(self._tracer, _PROPAGATOR.extract(headers, context=Context()))

    def close(self) -> None:
        """Send what is left; blocks for as long as the exporter's timeout says."""
        self._provider.shutdown()


def build_tracing() -> Tracing:
    """Return tracing that sends spans in batches over OTLP/HTTP to where the environment says."""
    resource = Resource.create({"service.name": SERVICE_NAME}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _attributes(request: TracedRequest, operation: str) -> dict[str, str | int | float | None]:
    usage = request.usage
    return {
        "gen_ai.operation.name": operation or None,
        "gen_ai.request.model": request.model,
        "gen_ai.response.model": request.target.partition("/")[2] if request.target else None,
        "gen_ai.usage.input_tokens": usage.prompt_tokens if usage else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens if usage else None,
        "gen_ai.usage.output_tokens": usage.output_tokens if usage else None,
        "http.response.status_code": request.status,
        "mlaas.id": request.id,
        "mlaas.request_id": request.request_id,
        "mlaas.tenant": request.tenant,
        "mlaas.key_id": request.key_id,
        "mlaas.target": request.target,
        "mlaas.route.reason": request.reason,
        "mlaas.cache": request.cache or None,
        "mlaas.cost_usd": None if request.cost_usd is None else float(request.cost_usd),
    }
