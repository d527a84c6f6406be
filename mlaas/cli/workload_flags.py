"""The flags of `mlaas submit` and `mlaas plan` that say what a workload asks for.

Each is one field of a workload's document (`mlaas.scheduler.requests.document`), and is read there: a flag, a line of
YAML and a keyword of Python mean the same.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from mlaas.errors import ConfigError

_REST: Final = "mlaas.rest"


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag:
    """One flag.

    Attributes:
        name: as it is typed.
        field: of the document.
        help: what it says.
        panel: heading in the help.
        is_repeated: whether it may be given more than once.
        is_pair: whether it is KEY=VALUE.
        sets: value of a flag that takes none; None: it takes one.
    """

    name: str
    field: str
    help: str
    panel: str
    is_repeated: bool = False
    is_pair: bool = False
    sets: bool | None = None


_WHAT, _WHERE, _WHEN = "Workload: what runs", "Workload: its gang", "Workload: its turn"
FLAGS: Final = (
    Flag(name="--name", field="name", help="Runs of one name teach how long such runs take.", panel=_WHAT),
    Flag(
        name="--kind",
        field="kind",
        help="job or batch: the command runs in each worker. train, tune or serve: once, as driver.",
        panel=_WHAT,
    ),
    Flag(
        name="--env",
        field="environment",
        help="NAME=VALUE; may be repeated.",
        panel=_WHAT,
        is_repeated=True,
        is_pair=True,
    ),
    Flag(name="--array", field="array", help="One for each index: 100, 0-99 or 1,3,7-9.", panel=_WHAT),
    Flag(name="--retries", field="retries", help="Further attempts when it fails by itself.", panel=_WHAT),
    Flag(name="--workers", field="workers", help="4, or 2..8 if it may shrink and grow.", panel=_WHERE),
    Flag(name="--gpus", field="gpus", help="Of each worker; 0.5 is half of one device.", panel=_WHERE),
    Flag(name="--cpus", field="cpus", help="Of each worker.", panel=_WHERE),
    Flag(name="--memory", field="memory", help="Of each worker, such as 16GiB.", panel=_WHERE),
    Flag(
        name="--label",
        field="labels",
        help="KEY=VALUE that its nodes must have; may be repeated.",
        panel=_WHERE,
        is_repeated=True,
        is_pair=True,
    ),
    Flag(name="--strategy", field="strategy", help="PACK, STRICT_PACK, SPREAD or STRICT_SPREAD.", panel=_WHERE),
    Flag(name="--topology", field="topology", help="Label whose value all its nodes share: rack.", panel=_WHERE),
    Flag(name="--queue", field="queue", help="Queue, and with it the quota.", panel=_WHEN),
    Flag(name="--priority", field="priority", help="Priority class of queues.yaml.", panel=_WHEN),
    Flag(name="--estimate", field="estimate", help="Runtime at full size, such as 2h.", panel=_WHEN),
    Flag(name="--deadline", field="deadline", help="When it should have ended: 6h, or a date.", panel=_WHEN),
    Flag(
        name="--after",
        field="depends_on",
        help="Id of a workload that must have succeeded; may be repeated.",
        panel=_WHEN,
        is_repeated=True,
    ),
    Flag(name="--not-preemptible", field="preemptible", help="Never asked to yield.", panel=_WHEN, sets=False),
)


class RestCommand(TyperCommand):
    """A command that keeps what stands after `--` apart from its own arguments."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what stands before the first `--`."""
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[_REST] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


def rest_of(context: typer.Context) -> list[str]:
    """Return what stood after `--` of a `RestCommand`."""
    rest: list[str] = context.meta[_REST]
    return rest


def takes_workload_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of a workload. It gets the fields that they set as its argument `fields`."""

    @functools.wraps(command)
    def with_flags(**arguments: Any) -> None:
        given = {flag.field: arguments.pop(flag.field) for flag in FLAGS}
        command(**arguments, fields=_fields(given))

    own = inspect.signature(command, eval_str=True)
    flags = [
        inspect.Parameter(flag.field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(flag))
        for flag in FLAGS
    ]
    parameters = [*(each for name, each in own.parameters.items() if name != "fields"), *flags]
    with_flags.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # what Typer reads
    with_flags.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_flags


def documents_of(file: Path | None, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the workloads of a file, with the fields that flags gave before its own; without a file those alone.

    Raises:
        ConfigError: the file cannot be read, or something is wrong in it or in a flag; the message says where.
    """
    from mlaas.scheduler.requests.document import encode_spec, parse_spec, parse_specs

    if file is None:
        return [encode_spec(parse_spec(fields, origin="flags"))]
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("bad_workload", f"cannot read {file}: {error}") from error
    documents = [encode_spec(spec) for spec in parse_specs(text, origin=str(file))]
    return [encode_spec(parse_spec({**document, **fields}, origin="flags")) for document in documents]


def _annotation(flag: Flag) -> Any:
    kind = bool if flag.sets is not None else list[str] if flag.is_repeated else str
    metavar = "KEY=VALUE" if flag.is_pair else None
    option = typer.Option(flag.name, help=flag.help, metavar=metavar, rich_help_panel=flag.panel, show_default=False)
    return Annotated[kind | None, option]


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that flags set.

    Raises:
        ConfigError: a flag that takes KEY=VALUE was given something else.
    """
    fields: dict[str, Any] = {}
    for flag in FLAGS:
        value = given[flag.field]
        if flag.is_pair and value:
            fields[flag.field] = _pairs(flag.name, value)
        elif value:
            fields[flag.field] = value if flag.sets is None else flag.sets
    return fields


def _pairs(name: str, texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ConfigError("bad_flag", f"{name} {text}: write it as KEY=VALUE")
        pairs[key] = value
    return pairs
