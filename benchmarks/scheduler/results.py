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
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    document = {
        "command": " ".join(["python", *(Path(word).name if word.startswith("/") else word for word in sys.argv)]),
        "commit": commit,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{_cpu()}, {platform.machine()}, {platform.system()}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "figures": figures,
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def _cpu() -> str:
    import os

    return f"{os.cpu_count()} cores"
