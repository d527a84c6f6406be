"""Results with what is needed to judge them: commit, machine, versions, command."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "results"


def write_result(name: str, figures: object) -> None:
    """Write `results/<name>.json` beside this file."""
    document = {
        "command": " ".join(["python", *(Path(word).name if word.startswith("/") else word for word in sys.argv)]),
        "commit": commit(),
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{_cpu()}, {platform.machine()}, {platform.system()}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "figures": figures,
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def commit() -> str:
    """Return what is measured; `-dirty` where a file has changed since, results aside: they change by being written."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude)results")
    return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    ).stdout.strip()


def _cpu() -> str:
    import os

    return f"{os.cpu_count()} cores"
