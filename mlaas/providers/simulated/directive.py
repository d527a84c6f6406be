"""What a request asks of the simulator itself: a fault, and how to answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

FAULTS: Final = frozenset(
    {
        "quota",
        "slow",
        "stall",
        "truncated",
        "short",
        "malformed",
        "disconnect",
        "error-first",
        "error",
        "wrong-usage",
        "no-usage",
        "endless",
    }
)
RANDOM_FAULTS: Final = (
    "429",
    "500",
    "503",
    "529",
    "truncated",
    "short",
    "malformed",
    "disconnect",
    "error-first",
    "error",
)
"""What `--fault-rate` draws from: those that end a request within the time that it would take anyway."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to answer.

    Attributes:
        tokens: pieces of text.
        rate: pieces per second; 0 is as fast as it goes.
        latency: seconds to the first byte.
        stall: seconds that the faults `slow` and `stall` take.
        after: seconds to wait that a refusal for load asks for.
        form: how it asks for them.
        cached: tokens of the prompt that were read from the cache.
        written: tokens of the prompt that were written to the cache.
        reasoning: pieces of reasoning, where the request asks for reasoning.
    """

    tokens: int = 16
    rate: float = 0.0
    latency: float = 0.0
    stall: float = 30.0
    after: float = 7.0
    form: str = "seconds"
    cached: int = 0
    written: int = 0
    reasoning: int = 4


DEFAULTS: Final = Options()
_TYPES: Final = {field.name: type(getattr(DEFAULTS, field.name)) for field in fields(Options)}


def parse_directive(model: str, headers: Mapping[str, str], defaults: Options = DEFAULTS) -> tuple[str, Options]:
    """Return the fault that a request asks for, empty for none, and its options.

    Args:
        model: such as `m`, `sim-429` or `gpt-5@tokens=500,rate=50`; `+` is as good as `,`, and `:` as `=`, for names
            that may not hold them.
        headers: `x-sim-fault` and `x-sim-options` go before what the model's name says.
        defaults: of options that are not given.

    Raises:
        ValueError: no such fault or option, or not a value of it.
    """
    base, _, text = model.partition("@")
    fault = headers.get("x-sim-fault") or (base.removeprefix("sim-") if base.startswith("sim-") else "")
    if fault and fault not in FAULTS and not (fault.isdigit() and 400 <= int(fault) < 600):
        raise ValueError(
            f"no fault is called {fault!r}; there are a status from 400 to 599 and {', '.join(sorted(FAULTS))}"
        )
    given = ",".join(filter(None, (text, headers.get("x-sim-options"))))
    return fault, Options(**{**asdict(defaults), **_parse_options(given)}) if given else defaults


def _parse_options(text: str) -> dict[str, Any]:
    values = {}
    for pair in text.replace("+", ",").replace(":", "=").split(","):
        name, _, value = pair.strip().partition("=")
        if name not in _TYPES:
            raise ValueError(f"no option is called {name!r}; there are {', '.join(_TYPES)}")
        values[name] = _TYPES[name](value)
    return values
