"""Times, amounts, sizes and indexes as people write them, with units or without.

Each function takes what YAML, JSON or a flag gives, and raises ValueError with the value and the way out.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

MOST_S: Final = 10 * 366 * 86_400.0
"""No run takes more than ten years; a longer time is a slip of the keyboard."""
MOST_BYTES: Final = 2**60
MOST_INDEXES: Final = 10_000
"""Workloads of one array."""
MOST_INDEX: Final = 10**9

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PREFIXES: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_NUMBER: Final = r"\d+(?:\.\d*)?|\.\d+"
_DURATION: Final = re.compile(rf"(?:(?:{_NUMBER}) *(?:ms|min|[smhdw]) *)+")
_DURATION_PART: Final = re.compile(rf"({_NUMBER}) *(ms|min|[smhdw])")
_SIZE: Final = re.compile(rf"({_NUMBER}) *([kmgtp]?)(i?)b?", re.IGNORECASE)

EnumT = TypeVar("EnumT", bound=StrEnum)


def parse_number(value: object) -> float:
    """Return a finite number, 0 or more.

    Raises:
        ValueError: it is none.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{shown(value)} is not a finite number, 0 or more")
    return number


def parse_count(value: object) -> int:
    """Return a whole number, 0 or more.

    Raises:
        ValueError: it is none.
    """
    number = parse_number(value)
    if number != int(number):
        raise ValueError(f"{shown(value)} is not a whole number")
    return int(number)


def parse_duration(value: object) -> float:
    """Return the seconds of `90`, `90s`, `15m`, `2h`, `1h30m`, `3d` or `1w`.

    Raises:
        ValueError: it is not a time, or longer than ten years.
    """
    text = value.strip() if isinstance(value, str) else ""
    if _DURATION.fullmatch(text):
        seconds = math.fsum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    else:
        try:
            seconds = parse_number(value)
        except ValueError as error:
            raise ValueError(f"{shown(value)} is not a time; write 90s, 15m, 2h, 1h30m or 3d") from error
    if seconds > MOST_S:
        raise ValueError(f"{shown(value)} is longer than ten years; check its unit")
    return seconds


def parse_deadline(value: object) -> float | datetime:
    """Return a time from the submission on in seconds, or a date with its time of day, in UTC.

    Raises:
        ValueError: it is neither, or a date without time of day or time zone.
    """
    if isinstance(value, str) and re.match(r"\s*\d{4}-", value):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise ValueError(
                f"{shown(value)} is not a date; write 2026-12-01T08:00:00+01:00, or a time such as 6h"
            ) from error
    if not isinstance(value, date):
        return parse_duration(value)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{value} has no time zone; write it with its own, such as 2026-12-01T08:00:00+01:00 or ...Z")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{value} is not a date in UTC; check its year") from error


def parse_size(value: object) -> int:
    """Return the bytes of `1000000`, `500MB` or `4GiB`; `4Gi` is the same.

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.fullmatch(_written(value))
    try:
        number, prefix, binary = match.groups() if match else (value, "", "")
        size = parse_number(number) * (1024 if binary else 1000) ** _PREFIXES[prefix.lower()]
    except ValueError as error:
        raise ValueError(f"{shown(value)} is not a size; write 512MiB, 4GiB or a number of bytes") from error
    if size > MOST_BYTES:
        raise ValueError(f"{shown(value)} is more than an exbibyte; check its unit")
    return round(size)


def parse_workers(value: object) -> tuple[int, int]:
    """Return the smallest and the largest size of `4` or `2..8`.

    Raises:
        ValueError: it is neither.
    """
    match = re.fullmatch(r"(\d{1,18})(?:\.\.(\d{1,18}))?", _written(value))
    if match is None:
        raise ValueError(
            f"{shown(value)} is not a number of workers; write 4, or 2..8 for a gang that may shrink and grow"
        )
    least, most = int(match[1]), int(match[2] or match[1])
    if most < least:
        raise ValueError(f"{shown(value)}: the first is the fewest and the second the most; write {most}..{least}")
    return least, most


def parse_array(value: object) -> tuple[int, ...]:
    """Return the indexes of `100` (0 to 99), `0-99`, `1,3,7-9` or a list.

    Raises:
        ValueError: it is none of these, names an index twice, or names too many.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        indexes = [_index(each) for each in value[: MOST_INDEXES + 1]]
    else:
        text = _written(value)
        if not re.fullmatch(r"\d{1,10}(-\d{1,10})?( *, *\d{1,10}(-\d{1,10})?)*", text):
            raise ValueError(
                f"{shown(value)} is no array; write how many (100), or which indexes (0-99, 1,3,7-9, or a list)"
            )
        indexes = list(range(min(int(text), MOST_INDEXES + 1))) if text.isdigit() else _ranges(text)
    if not indexes:
        raise ValueError("the array is empty; leave it out for a single workload")
    if len(indexes) > MOST_INDEXES:
        raise ValueError(f"an array has at most {MOST_INDEXES:,} indexes; submit several")
    if len(set(indexes)) < len(indexes):
        raise ValueError(
            f"index {next(each for each in indexes if indexes.count(each) > 1)} is named twice; name it once"
        )
    return tuple(indexes)


def format_array(indexes: Sequence[int]) -> str | list[int]:
    """Return what `parse_array` reads as these indexes, runs of them as ranges."""
    if len(indexes) == 1:
        return list(indexes)
    runs: list[list[int]] = []
    for index in indexes:
        if runs and index == runs[-1][-1] + 1:
            runs[-1][1:] = [index]
        else:
            runs.append([index])
    return ",".join("-".join(map(str, run)) for run in runs)


def parse_text(value: object) -> str:
    """Return a text as it is.

    Raises:
        ValueError: it is something else, or holds a zero byte.
    """
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a text; put it in quotes if it is meant as one")
    if "\0" in value:
        raise ValueError(f"{value[:100]!r} holds a zero byte; take it out")
    return value


def parse_name(value: object) -> str:
    """Return a text that is not empty.

    Raises:
        ValueError: it is.
    """
    text = parse_text(value)
    if not text.strip():
        raise ValueError("it is empty; leave it out, or give it a value")
    return text


def parse_switch(value: object) -> bool:
    """Return `true` or `false`.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither true nor false")
    return value


def parse_texts(value: object) -> dict[str, str]:
    """Return names with their texts; numbers become texts.

    Raises:
        ValueError: it is no mapping, or a value is neither text nor number.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{shown(value)} is not a mapping; write `NAME: value` for each")
    return {parse_name(name): _as_text(name, each) for name, each in value.items()}


def parse_names(value: object) -> tuple[str, ...]:
    """Return a list of texts; one alone needs no list.

    Raises:
        ValueError: it is neither, one is empty, or one is named twice.
    """
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, Sequence):
        raise ValueError(f"{shown(value)} is not a list of names")
    names = tuple(parse_name(each) for each in listed)
    if len(set(names)) < len(names):
        raise ValueError(f"{next(each for each in names if names.count(each) > 1)!r} is named twice; name it once")
    return names


def parse_command(value: object) -> tuple[str, ...]:
    """Return what is executed: a list as it is, a text by the shell.

    Raises:
        ValueError: it is neither, or empty.
    """
    if isinstance(value, str):
        return ("/bin/sh", "-c", parse_name(value))
    if not (isinstance(value, Sequence) and value):
        raise ValueError(
            f"{shown(value)} is not a command; write a text for the shell, or a list of program and arguments"
        )
    return tuple(_as_text("command", each) for each in value)


def parse_choice(value: object, choices: type[EnumT]) -> EnumT:
    """Return a member of an enum by its value, in any case.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    for choice in choices:
        if isinstance(value, str) and value.casefold() == choice.value.casefold():
            return choice
    raise ValueError(f"{shown(value)} is not one of {', '.join(choice.value for choice in choices)}")


def shown(value: object) -> str:
    """Return a value for a message. Never the whole of it: aliases make a short YAML text an endless value."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 100
    shortener.maxlevel = 2
    return shortener.repr(value)


def _written(value: object) -> str:
    """Return a text or number as it was written; empty for anything else."""
    return "" if isinstance(value, bool) or not isinstance(value, str | int | float) else str(value).strip()


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_INDEX:
        raise ValueError(f"{shown(value)} is not an index; it is a whole number from 0 to {MOST_INDEX:,}")
    return value


def _ranges(text: str) -> list[int]:
    indexes: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        start, end = _index(int(first)), _index(int(last or first))
        if end < start:
            raise ValueError(f"{part.strip()!r} runs backwards; write {end}-{start}")
        indexes += range(start, min(end + 1, start + MOST_INDEXES + 1))
    return indexes


def _as_text(name: object, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{shown(value)} of {name} is neither text nor number; put it in quotes")
    return parse_text(str(value))
