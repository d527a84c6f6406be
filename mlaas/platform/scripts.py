"""Scripts of a working directory as modules."""

from __future__ import annotations

import re
from pathlib import Path

from mlaas.errors import ConfigError


def module_of(script: Path, *, working_dir: Path) -> str:
    """Return the name under which a script of a folder runs as a module: `jobs/train_lm.py` is `jobs.train_lm`.

    Raises:
        ConfigError: the script does not exist, lies outside the folder, or has a path that no module has.
    """
    path = (working_dir / script).resolve()
    if not path.is_file():
        raise ConfigError("no_script", f"{script} does not exist below {working_dir}")
    if not path.is_relative_to(working_dir.resolve()):
        raise ConfigError("script_outside", f"{script} lies outside {working_dir}, the folder that is uploaded")
    parts = path.relative_to(working_dir.resolve()).with_suffix("").parts
    if path.suffix != ".py" or not all(re.fullmatch(r"[A-Za-z_]\w*", part) for part in parts):
        raise ConfigError(
            "not_a_module", f"{script} is not a Python module: its path must be of .py names, as in a/b.py"
        )
    return ".".join(parts)
