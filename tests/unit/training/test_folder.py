"""The run's folder: an unfinished run is resumed, a finished one is followed, and one driver has it at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlaas.errors import Conflict
from mlaas.training.folder import RunFolder, hold, open_run, replace_text
from mlaas.training.recipes import parse_recipe

RECIPE = parse_recipe({"name": "m", "train": {"steps": 1}}, origin="")


def test_unfinished_run_is_resumed_and_a_finished_one_is_followed_by_the_next(tmp_path: Path) -> None:
    first = open_run(tmp_path, recipe=RECIPE, data_hash="a")
    assert first.path.name == "1"
    assert first.path.parent.name.startswith("m-")
    assert open_run(tmp_path, recipe=RECIPE, data_hash="a") == first
    replace_text(first.result, "{}")
    assert open_run(tmp_path, recipe=RECIPE, data_hash="a").path == first.path.parent / "2"


def test_other_data_or_another_recipe_is_another_run(tmp_path: Path) -> None:
    other = parse_recipe({"name": "m", "train": {"steps": 2}}, origin="")
    folders = {
        open_run(tmp_path, recipe=recipe, data_hash=data).path for recipe in (RECIPE, other) for data in ("a", "b")
    }
    assert len(folders) == 4


def test_second_driver_is_kept_out_until_the_first_ends_however_it_ends(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    code = (
        "import sys; from pathlib import Path; from mlaas.training.folder import RunFolder, hold\n"
        "with hold(RunFolder(Path(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match="is being trained by another job"), hold(folder):
            pass
        first.kill()
        first.wait()
        with hold(folder):
            pass
