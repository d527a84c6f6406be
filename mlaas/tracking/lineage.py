"""Which commit the running code is of."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

UNKNOWN = "unknown"


def git_commit() -> str:
    """Return the commit of the code, with `-dirty` when files differ from it, or `unknown`.

    A job runs in a copy of the working directory, and Ray leaves `.git` out of that. Then the checkout that the
    package is installed from (`pip install -e`) is asked.
    """
    for folder in (Path.cwd(), _installed_from()):
        if folder and (folder / ".git").exists():
            return _describe(folder)
    return UNKNOWN


def _describe(folder: Path) -> str:
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN


def _installed_from() -> Path | None:
    """Return the folder of an editable installation. Source: PEP 610, direct_url.json."""
    try:
        record = distribution("mlaas").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    url = urlparse(json.loads(record)["url"]) if record else None
    return Path(unquote(url.path)) if url and url.scheme == "file" else None
