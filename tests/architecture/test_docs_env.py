"""docs/env.md says what the code reads: the table of settings is the code's own, and no variable is missing."""

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

from mlaas.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "env.md").read_text()
SOURCES = [
    *(path for folder in ("mlaas", "serve_apps", "jobs") for path in (ROOT / folder).rglob("*.py")),
    *(ROOT / "serve_apps" / "config").glob("*.yaml"),
    ROOT / "Makefile",
]


def field_docstrings() -> dict[str, str]:
    """Return the text below each field of `Settings`."""
    [definition] = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: docstring.value.value
        for field, docstring in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(docstring, ast.Expr)
    }


def table() -> str:
    """Return the table of settings as the page has to show it."""
    docstrings, defaults = field_docstrings(), load_settings({})
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for field in fields(Settings):
        default = str(getattr(defaults, field.name)).replace(str(Path.home()), "~")
        shown = f"`{default}`" if default else "empty"
        rows.append(f"| `MLAAS_{field.name.upper()}` | {shown} | {' '.join(docstrings[field.name].split())} |")
    return "\n".join(rows)


def test_the_table_of_settings_is_the_one_in_the_code() -> None:
    assert table() in PAGE, f"docs/env.md must hold this table:\n{table()}"


def test_every_variable_that_the_code_names_is_on_the_page() -> None:
    named = {
        name for path in SOURCES for name in re.findall(r"\b(?:MLAAS_[A-Z_]{2,}|[A-Z]+_API_KEY)\b", path.read_text())
    }
    named -= {"VLLM_API_KEY"}  # Made by a replica for its own engine; nobody sets it.
    assert named - set(re.findall(r"[A-Z_]+", PAGE)) == set()
