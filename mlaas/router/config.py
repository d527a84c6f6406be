"""What the router's YAML file may say, as typed values. `config_file` reads the file."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from mlaas.providers.vllm import LOCAL
from mlaas.router.section import Strict
from mlaas.router.types import RoutingPolicy, Target
from mlaas.router.virtual.config import CascadeConfig, EnsembleConfig, PipelineConfig, VirtualConfig


def parse_target(value: object) -> object:
    """Return the target that `provider/model` names; what is no text is left to the type check.

    Raises:
        ValueError: the text is not of this form.
    """
    if not isinstance(value, str):
        return value
    provider, slash, model = value.partition("/")
    if not (provider and slash and model):
        raise ValueError(f"{value!r} is not a target; write provider/model, such as {LOCAL}/tiny-python")
    return Target(provider=provider, model=model)


def _wrap_target(value: object) -> object:
    return {"target": value} if isinstance(value, str | Target) else value


def _wrap_price(value: object) -> object:
    return [value] if isinstance(value, dict) else value


TargetField = Annotated[Target, BeforeValidator(parse_target)]


class ProviderKey(Strict):
    """One of several keys of a provider."""

    api_key_env: str | None = None
    """Environment variable with the key. While it is unset, the key is not used."""
    api_key: str | None = Field(default=None, repr=False)
    """The key itself, for an upstream where it is no secret."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of the requests, against the weights of the other keys."""

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if bool(self.api_key_env) == bool(self.api_key):
            raise ValueError("give one of api_key_env and api_key")
        return self


class ProviderConfig(Strict):
    """One upstream provider."""

    kind: str | None = None
    """Wire format. None: the provider's own name, which must then be a kind."""
    base_url: str | None = None
    """URL that ends where `/chat/completions` begins. None: the vendor's own."""
    api_key_env: str | None = None
    """Environment variable with the key. While it is unset, the provider's models are not offered."""
    api_key: str | None = Field(default=None, repr=False)
    """The key itself, for an upstream where it is no secret."""
    keys: tuple[ProviderKey, ...] = ()
    """Several keys, in place of the one."""
    models: tuple[str, ...] = ()
    """Model names that `/v1/models` lists. Any other name of the provider can be called all the same."""
    allow_private: bool = False
    """Whether a host name in `base_url` may resolve to a private address. A literal private address needs no leave."""
    residency: frozenset[str] = frozenset()
    """Where data stays that is sent there, such as `eu`; an alias may ask for such tags."""
    drop_params: tuple[str, ...] = ()
    """Request fields that are left out where a model of this provider cannot honour them, in place of an error."""

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if bool(self.api_key_env) + bool(self.api_key) + bool(self.keys) > 1:
            raise ValueError("give one of api_key_env, api_key and keys")
        return self


class AliasTarget(Strict):
    """One target of an alias."""

    target: TargetField
    """`provider/model`."""
    weight: float = Field(default=1.0, ge=0)
    """Its share under the policy `weighted`; 0 is only used when nothing else is up."""


class SLOConfig(Strict):
    """What a caller of an alias may expect."""

    ttft_s: float | None = Field(default=None, gt=0)
    """Longest time to the first token, in seconds. None: not bounded."""
    tokens_per_s: float | None = Field(default=None, gt=0)
    """Least output tokens per second of one answer. None: not bounded."""


class BurstConfig(Strict):
    """When and where an alias overflows, and when it comes back."""

    targets: tuple[TargetField, ...] = Field(min_length=1)
    """`provider/model` each, in order of preference: paid traffic that this section authorises."""
    max_queue: int | None = Field(default=None, ge=0)
    """Requests that may wait at each local replica before traffic overflows. None: only the time counts."""
    ttft_s: float | None = Field(default=None, gt=0)
    """Predicted time to the first token that starts the overflow. None: the SLO's."""
    return_ratio: float = Field(default=0.5, gt=0, lt=1)
    """Traffic comes back once the pressure is below this part of what started the overflow."""
    hold_s: float = Field(default=10.0, ge=0)
    """How long the pressure must stay below before traffic comes back, in seconds."""
    cold_start: bool = True
    """Whether the targets also stand in while a deployed model has no live replica."""


class SemanticCacheConfig(Strict):
    """Answers from the cache to requests that mean the same."""

    model: str
    """Model of `/v1/embeddings` that compares requests."""
    threshold: float = Field(default=0.95, gt=0, le=1)
    """Least cosine similarity of a hit."""


class CacheConfig(Strict):
    """An alias's cache; without this section there is none."""

    ttl_s: float = Field(default=300.0, gt=0)
    """How long an answer is kept, in seconds."""
    exact: bool = True
    """Whether the same request of the same tenant is answered from the cache."""
    semantic: SemanticCacheConfig | None = None
    """None: only the same request."""


class BalanceConfig(Strict):
    """What counts how much under the policies `balanced` and `auto`."""

    cost: float = Field(default=1.0, ge=0)
    """Weight of the dollars."""
    latency: float = Field(default=1.0, ge=0)
    """Weight of the time."""
    quality: float = Field(default=1.0, ge=0)
    """Weight of the quality table's score."""


class AliasConfig(Strict):
    """One model name of ours that stands for targets."""

    targets: tuple[Annotated[AliasTarget, BeforeValidator(_wrap_target)], ...] = ()
    """`provider/model` each, or `{target: provider/model, weight: 2}`, in order of preference."""
    policy: RoutingPolicy = RoutingPolicy.FAILOVER
    """How to choose among the targets."""
    drop_params: tuple[str, ...] = ()
    """Request fields that are left out where the chosen target cannot honour them, in place of an error."""
    slo: SLOConfig = SLOConfig()
    """What callers may expect; read by `balanced`, `auto` and `burst`."""
    burst: BurstConfig | None = None
    """None: no traffic beyond `targets`."""
    balance: BalanceConfig = BalanceConfig()
    """Weights of `balanced` and `auto`."""
    residency: frozenset[str] = frozenset()
    """Tags that a provider must have for its models to be used; the cluster's own models have every tag."""
    cache: CacheConfig | None = None
    """None: no cache."""
    hedge_after_s: float | None = Field(default=None, gt=0)
    """Silence of the first target after which a second one is asked as well. None: never."""
    max_attempts: int = Field(default=8, ge=1)
    """Attempts in all for one request."""
    cascade: CascadeConfig | None = None
    """In place of targets: models one after the other, until one's answer passes a check."""
    ensemble: EnsembleConfig | None = None
    """In place of targets: several models at once, and one answer of theirs."""
    pipeline: PipelineConfig | None = None
    """In place of targets: models that work on what the one before has written."""

    @property
    def virtual(self) -> VirtualConfig | None:
        """What the alias is made of when it has no targets of its own."""
        return self.cascade or self.ensemble or self.pipeline

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if bool(self.targets) + bool(self.cascade) + bool(self.ensemble) + bool(self.pipeline) != 1:
            raise ValueError("give at least one target, or one of cascade, ensemble and pipeline")
        return self


class RatesConfig(Strict):
    """Prices of each kind of token, in US dollars per million."""

    input_usd_per_mtok: Decimal = Field(ge=0)
    """Read anew."""
    output_usd_per_mtok: Decimal = Field(ge=0)
    """Written, reasoning included."""
    cache_read_usd_per_mtok: Decimal | None = Field(default=None, ge=0)
    """Read from the provider's cache. None: as input."""
    cache_write_usd_per_mtok: Decimal | None = Field(default=None, ge=0)
    """Written to the provider's cache. None: as input."""


class PriceStepConfig(RatesConfig):
    """What a longer request costs as a whole."""

    above_tokens: int = Field(gt=0)
    """Prompts of more tokens than that are charged at these prices, every token of them."""


class PriceConfig(RatesConfig):
    """What a model costs."""

    from_date: date | None = Field(default=None, alias="from")
    """First day of this price. None: always."""
    steps: tuple[PriceStepConfig, ...] = ()
    """Prices of longer requests; of several that a prompt is above, the highest counts."""


class CapabilityConfig(Strict):
    """What a model can do, where it differs from what is known; None leaves that as it is."""

    context: int | None = Field(default=None, gt=0)
    """Tokens of prompt and answer together."""
    max_output: int | None = Field(default=None, gt=0)
    """Tokens of one answer."""
    tools: bool | None = None
    """Whether it calls tools."""
    vision: bool | None = None
    """Whether it reads images."""
    json_schema: bool | None = None
    """Whether it keeps to a JSON schema."""
    reasoning: bool | None = None
    """Whether `reasoning_effort` means something to it."""
    json_object: bool | None = None
    """Whether it answers in JSON without a schema."""
    sampling: bool | None = None
    """Whether it takes `temperature` and `top_p`, while it reasons too."""
    penalties: bool | None = None
    """Whether it takes `presence_penalty` and `frequency_penalty`, while it reasons too."""
    logprobs: bool | None = None
    """Whether it tells the log probabilities of its tokens."""
    choices: bool | None = None
    """Whether it writes several answers, `n`."""
    seed: bool | None = None
    """Whether it takes a `seed`."""
    stop: bool | None = None
    """Whether it takes stop sequences."""
    logit_bias: bool | None = None
    """Whether it takes a `logit_bias`."""


class AdmissionConfig(Strict):
    """The queue in front of each local model, which vLLM itself does not bound."""

    per_replica: int = Field(default=64, ge=1)
    """Requests under way at one replica, of all gateway replicas together as seen by this one."""
    max_queue: int = Field(default=256, ge=0)
    """Requests that may wait for one model; a longer queue is refused with 429."""
    max_wait_s: float = Field(default=30.0, gt=0)
    """Longest wait, in seconds."""


class RetryConfig(Strict):
    """How much trying again is allowed."""

    budget_ratio: float = Field(default=0.2, ge=0)
    """Retries per request, over all requests of a gateway replica."""
    min_per_s: float = Field(default=10.0, ge=0)
    """Retries that are always allowed, per second."""


class TimeoutConfig(Strict):
    """How long an upstream may stay silent, in seconds."""

    connect_s: float = Field(default=5.0, gt=0)
    """Until the connection stands."""
    first_byte_s: float = Field(default=600.0, gt=0)
    """Until the first byte of the answer: all of the generation when it is not streamed; OpenAI's SDK waits as long."""
    between_bytes_s: float = Field(default=60.0, gt=0)
    """Between two reads of an answer that has begun."""
    total_s: float = Field(default=3600.0, gt=0)
    """For one request in all, attempts and waits included."""
    restart_wait_s: float = Field(default=3.0, ge=0)
    """How long a request waits for a replica that is expected back. 0: not at all."""


class RouterConfig(Strict):
    """All that the router is told."""

    providers: dict[str, ProviderConfig] = Field(default_factory=dict)
    """By the name that stands before the slash."""
    models: dict[str, AliasConfig] = Field(default_factory=dict)
    """Aliases by name."""
    prices: dict[str, Annotated[tuple[PriceConfig, ...], BeforeValidator(_wrap_price)]] = Field(default_factory=dict)
    """By `provider/model`: one price, or several with the day each begins. They go before the bundled prices."""
    machine_hour_usd: dict[str, Decimal] = Field(default_factory=dict)
    """What an hour of a local replica's machine costs, by local model; `default` for the others."""
    capabilities: dict[str, CapabilityConfig] = Field(default_factory=dict)
    """By `provider/model`."""
    quality: str | None = None
    """Path of the quality table that `mlaas bench-models` writes, relative to this file."""
    admission: AdmissionConfig = AdmissionConfig()
    """Queues of local models."""
    retries: RetryConfig = RetryConfig()
    """Bounds on trying again."""
    timeouts: TimeoutConfig = TimeoutConfig()
    """Bounds on waiting."""
