"""The one error tree of MLaaS.

Every error a user can meet is a `MlaasError`: a stable machine-readable code, a message that names the field, the value
and the way out, and the HTTP status of its class. Errors cross Ray processes, so each one pickles by its arguments.

    MlaasError
    ├── ConfigError              a recipe, router file, flag or environment variable is wrong
    ├── AuthenticationError      no key, or a key that is not known
    ├── PermissionDenied         a known key that may not do this
    ├── InvalidRequest           a request the gateway cannot read
    ├── RequestTooLarge          a body over the limit
    ├── AdmissionError           a workload that could never run
    │   └── LimitExceeded        a request over a limit of its key
    │       ├── RateLimited      requests, tokens or concurrency
    │       └── BudgetExceeded   money
    ├── PlacementError           a gang that no longer fits where it was to go
    ├── NotFound                 an unknown model, run, deployment or key
    ├── Conflict                 the state does not allow it: a port taken, a second head
    ├── ProviderError            an upstream answered, or failed to answer
    │   ├── ProviderTimeout
    │   ├── ProviderRateLimited
    │   ├── ProviderRejected     the upstream says the request itself is wrong: never retried
    │   └── ProviderUnavailable
    ├── DataError                training data that is empty or unreadable
    ├── CheckpointError          a checkpoint that is torn, or cannot be written
    ├── TrainingError            a training run that failed
    ├── DeploymentError          a model that does not come up
    └── PlatformError            a part of the platform that does not start, answer or stop
"""

from __future__ import annotations

from typing import ClassVar, Self


class MlaasError(Exception):
    """A failure with a stable code and a message meant for the user.

    Attributes:
        code: stable snake_case identifier, safe to match on.
        message: what is wrong, with the value, and what to do about it.
        status: HTTP status that the class maps to.
        retry_after_s: seconds after which the same request may succeed; None: waiting alone does not help.
    """

    status: ClassVar[int] = 500

    def __init__(self, code: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[Self], tuple[str, str], dict[str, object]]:
        return (type(self), (self.code, self.message), vars(self))


class ConfigError(MlaasError):
    """A recipe, router file, flag or environment variable is wrong."""

    status = 400


class AuthenticationError(MlaasError):
    """The caller sent no key, or one that is not known."""

    status = 401


class PermissionDenied(MlaasError):
    """The caller is known and may not do this."""

    status = 403


class InvalidRequest(MlaasError):
    """The gateway cannot read the request."""

    status = 400


class RequestTooLarge(MlaasError):
    """The request body is over the limit."""

    status = 413


class AdmissionError(MlaasError):
    """The scheduler refuses a workload that could never run."""

    status = 400


class LimitExceeded(AdmissionError):
    """A request is over a limit of its key.

    Attributes:
        limit: name of the limit, as `mlaas keys create` calls it: rpm, tpm, concurrency or budget_usd.
    """

    status = 429

    def __init__(self, code: str, message: str, *, retry_after_s: float | None = None, limit: str = "") -> None:
        super().__init__(code, message, retry_after_s=retry_after_s)
        self.limit = limit


class RateLimited(LimitExceeded):
    """The key has no requests, tokens or places left at this moment."""


class BudgetExceeded(LimitExceeded):
    """The key's budget does not cover the request."""


class PlacementError(MlaasError):
    """A gang does not fit any more on the nodes that were chosen for it."""

    status = 409


class NotFound(MlaasError):
    """The model, run, deployment, key or route does not exist."""

    status = 404


class Conflict(MlaasError):
    """The present state does not allow the operation."""

    status = 409


class ProviderError(MlaasError):
    """An upstream model provider failed."""

    status = 502


class ProviderTimeout(ProviderError):
    """An upstream did not answer in time."""

    status = 504


class ProviderRateLimited(ProviderError):
    """An upstream refused for load or quota."""

    status = 429


class ProviderRejected(ProviderError):
    """An upstream says that the request itself is wrong; another attempt cannot help."""

    status = 400


class ProviderUnavailable(ProviderError):
    """An upstream refused the connection, or no upstream is up."""

    status = 503


class DataError(MlaasError):
    """Training data is missing, empty or unreadable."""

    status = 400


class CheckpointError(MlaasError):
    """A checkpoint is torn, or cannot be written."""


class TrainingError(MlaasError):
    """A training run failed."""


class DeploymentError(MlaasError):
    """A model deployment does not come up."""

    status = 503


class PlatformError(MlaasError):
    """A part of the platform does not start, answer or stop."""

    status = 503
