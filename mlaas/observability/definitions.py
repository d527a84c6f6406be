"""Every metric of gateway and scheduler: its name, what it means, its labels and buckets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """One metric.

    Attributes:
        buckets: upper bounds of a histogram, ascending; empty for any other kind.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


REQUESTS = Definition(
    name="mlaas_router_requests_total",
    help="Requests to models that have ended, by HTTP status; 499 is a caller that left.",
    labels=("operation", "model", "target", "status"),
)
ERRORS = Definition(
    name="mlaas_router_errors_total",
    help="Requests that ended in an error, in the status or inside the stream.",
    labels=("operation", "model", "code"),
)
REFUSALS = Definition(
    name="mlaas_router_refusals_total",
    help="Requests refused with 429 before any upstream was asked: a limit of the key, or a full queue.",
    labels=("model", "code"),
)
CACHE_HITS = Definition(
    name="mlaas_router_cache_hits_total",
    help="Requests answered from a cache, exact or semantic.",
    labels=("model", "kind"),
)
TOKENS = Definition(
    name="mlaas_router_tokens_total",
    help="Tokens by how they are priced; reasoning is a part of output.",
    labels=("model", "target", "kind"),
)
COST = Definition(
    name="mlaas_router_cost_usd_total",
    help="US dollars spent; the exact figure is the usage ledger's.",
    labels=("model", "target"),
)
DURATION = Definition(
    name="mlaas_router_request_duration_seconds",
    help="From a request's first byte to its answer's last, of answers with status 200.",
    labels=("operation", "model", "target"),
    # Source: OpenTelemetry GenAI conventions, gen_ai.server.request.duration, doubled on to the ten-minute timeout.
    buckets=(*(0.01 * 2**step for step in range(14)), 163.84, 327.68, 655.36),
)
TTFT = Definition(
    name="mlaas_router_time_to_first_token_seconds",
    help="From a request's first byte to the first content of its stream.",
    labels=("operation", "model", "target"),
    # Source: OpenTelemetry GenAI conventions, gen_ai.server.time_to_first_token, and on to a cold start.
    buckets=(0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0),
)
INTER_TOKEN = Definition(
    name="mlaas_router_time_per_output_token_seconds",
    help="Mean time between the tokens of one stream after its first.",
    labels=("operation", "model", "target"),
    # Source: OpenTelemetry GenAI conventions, gen_ai.server.time_per_output_token, with steps for fast small models.
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
QUEUE_WAIT = Definition(
    name="mlaas_router_queue_wait_seconds",
    help="Wait for a place at a local model, of requests that had to wait.",
    labels=("operation", "model", "target"),
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0),
)
ATTEMPTS = Definition(
    name="mlaas_router_attempts_total",
    help="Tries at an upstream, by what came of them: ok, or a kind of failure.",
    labels=("target", "outcome"),
)
RETRIES = Definition(
    name="mlaas_router_retries_total",
    help="Tries that followed a failure of the same target.",
    labels=("target",),
)
FALLBACKS = Definition(
    name="mlaas_router_fallbacks_total",
    help="Tries at a target that followed a failure of another one.",
    labels=("target",),
)
IN_FLIGHT = Definition(name="mlaas_router_requests_in_flight", help="Requests that have not ended.")
BREAKER = Definition(
    name="mlaas_router_breaker_state",
    help="Circuit breaker of an upstream address: 0 closed, 1 half open, 2 open.",
    labels=("origin",),
)
QUEUE_LENGTH = Definition(
    name="mlaas_router_queue_length", help="Requests that wait for a place at a local model.", labels=("model",)
)
JOURNAL_PENDING = Definition(
    name="mlaas_router_journal_pending_bytes", help="Bytes of the journal that the usage ledger does not have yet."
)
JOURNAL_LOST = Definition(
    name="mlaas_router_journal_lost_records", help="Records of requests that could not be written or read."
)
PRICE_DRIFT = Definition(
    name="mlaas_router_price_drift_ratio",
    help="What a provider says it billed, over what the price table says for the same requests.",
    labels=("provider",),
)

PER_REQUEST = (REQUESTS, ERRORS, REFUSALS, CACHE_HITS, TOKENS, COST, DURATION, TTFT, INTER_TOKEN, QUEUE_WAIT)
PER_ATTEMPT = (ATTEMPTS, RETRIES, FALLBACKS)
WATCHED = (IN_FLIGHT, BREAKER, QUEUE_LENGTH, JOURNAL_PENDING, JOURNAL_LOST, PRICE_DRIFT)
DEFINITIONS = (*PER_REQUEST, *PER_ATTEMPT, *WATCHED)

PENDING = Definition(
    name="mlaas_scheduler_pending",
    help="Workloads that wait, by why: queued, resources, quota, backfill, or held-back by dependency or back-off.",
    labels=("queue", "reason"),
)
RUNNING = Definition(
    name="mlaas_scheduler_running", help="Workloads that hold a gang, those that start or yield too.", labels=("queue",)
)
WAIT = Definition(
    name="mlaas_scheduler_wait_seconds",
    help="Time in the queue until a gang was placed, over all its waits; time held back does not count.",
    labels=("queue",),
    # From a decision cycle to the aging bound of a month.
    buckets=(1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0, 2_592_000.0),
)
DECISION = Definition(
    name="mlaas_scheduler_decision_seconds",
    help="Time that one decision took.",
    # Around the aim, 0.2 s for ten thousand waiting workloads on a thousand nodes.
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
PREEMPTIONS = Definition(
    name="mlaas_scheduler_preemptions_total",
    help="Gangs told to yield, shrink or move for another one, by the queue that gave.",
    labels=("queue", "kind"),
)
LOST_GPU_SECONDS = Definition(
    name="mlaas_scheduler_lost_gpu_seconds_total",
    help="GPU seconds of checkpoint and restart that preemptions have cost, as their workloads state it.",
    labels=("queue",),
)
GPUS = Definition(
    name="mlaas_scheduler_gpus", help="GPUs by who has them: gangs, outside use, or free.", labels=("holder",)
)
UTILIZATION = Definition(name="mlaas_scheduler_gpu_utilization_ratio", help="Part of all GPUs that gangs hold.")
TENANT_SHARE = Definition(
    name="mlaas_scheduler_tenant_share_ratio",
    help="Dominant share of the cluster that a tenant's gangs hold now.",
    labels=("tenant",),
)
QUEUE_SHARE = Definition(
    name="mlaas_scheduler_queue_average_share_ratio",
    help="Dominant share of the cluster that a queue has had lately, decaying by half each day.",
    labels=("queue",),
)
LEASES_LOST = Definition(
    name="mlaas_scheduler_leases_lost_total",
    help="Gangs taken back from holders that did not give them: node lost, holder silent, group broken.",
    labels=("reason",),
)
YIELDS_IGNORED = Definition(
    name="mlaas_scheduler_yields_ignored_total", help="Gangs killed at the deadline of their signal to yield."
)
STORE_ERRORS = Definition(
    name="mlaas_scheduler_store_errors_total", help="Calls of the scheduler that the store did not answer."
)

SCHEDULER = (
    PENDING,
    RUNNING,
    WAIT,
    DECISION,
    PREEMPTIONS,
    LOST_GPU_SECONDS,
    GPUS,
    UTILIZATION,
    TENANT_SHARE,
    QUEUE_SHARE,
    LEASES_LOST,
    YIELDS_IGNORED,
    STORE_ERRORS,
)
