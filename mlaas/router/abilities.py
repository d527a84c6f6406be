"""What each target can do: the table of models, corrected by the router's file."""

from __future__ import annotations

from mlaas.providers.base import Call, Operation
from mlaas.providers.capabilities import Capabilities, find_capabilities, override_capabilities, unsupported_fields
from mlaas.router.config import CapabilityConfig, RouterConfig
from mlaas.router.types import Target

_MAX_KEPT = 4096
_FEATURES = {"json_schema": "schema"}
"""By the file's name of a feature: ours, where the two differ."""
_BOUNDS = {"context", "max_output"}
_CHECKED = (Operation.CHAT, Operation.COMPLETION)


class Abilities:
    """Looks up what targets can do.

    Args:
        config: the router's file.
    """

    def __init__(self, config: RouterConfig) -> None:
        self._config = config
        self._kept: dict[Target, Capabilities] = {}

    def __call__(self, target: Target) -> Capabilities:
        """Return what a target can do."""
        found = self._kept.get(target)
        if found is None:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()  # Callers choose the names behind `provider/`.
            found = self._kept[target] = self._look_up(target)
        return found

    def unsupported(self, target: Target, call: Call) -> tuple[str, ...]:
        """Return the fields of a call that a target is known not to honour."""
        return unsupported_fields(self(target), call.fields) if call.operation in _CHECKED else ()

    def _look_up(self, target: Target) -> Capabilities:
        provider = self._config.providers.get(target.provider)
        kind = (provider.kind if provider is not None else None) or target.provider
        known = find_capabilities(kind, target.model)
        own = self._config.capabilities.get(str(target))
        return known if own is None else _override(known, own)


def _override(known: Capabilities, own: CapabilityConfig) -> Capabilities:
    return override_capabilities(
        known,
        context_tokens=own.context,
        max_output_tokens=own.max_output,
        features={_FEATURES.get(name, name): can for name, can in own.model_dump(exclude=_BOUNDS).items()},
    )
