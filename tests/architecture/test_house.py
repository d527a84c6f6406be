"""The rules of the house that no linter knows: sizes, names, cheap imports, one error tree."""

import ast
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mlaas import errors

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for top in ("mlaas", "serve_apps", "jobs") for path in (ROOT / top).rglob("*.py"))
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
HEAVY = ("torch", "ray", "vllm", "deepspeed", "mlflow", "transformers")


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    long = [f.name for f in functions(ast.parse(text)) if (f.end_lineno or 0) - f.lineno >= MAX_FUNCTION_LINES]
    assert not long, f"functions of {MAX_FUNCTION_LINES} lines or more: {long}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_named_by_a_noun_and_a_package_init_holds_no_code(path: Path) -> None:
    assert path.stem not in BANNED_NAMES
    if path.name == "__init__.py":
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, "a package's __init__ is its design note alone"
        assert isinstance(body[0], ast.Expr)


@pytest.mark.parametrize("module", ["mlaas.cli.main", "mlaas.training.recipes", "mlaas.router.choice.decide"])
def test_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not loaded


ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.MlaasError) and error is not errors.MlaasError
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_pickles_has_a_status_and_stands_in_the_tree(error: type[errors.MlaasError]) -> None:
    copy = pickle.loads(pickle.dumps(error("some_code", "some message")))
    assert (type(copy), copy.code, str(copy)) == (error, "some_code", "some message")
    assert 400 <= error.status < 600
    assert f"── {error.__name__}" in (errors.__doc__ or "")
