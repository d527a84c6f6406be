"""Archives of working directories, unpacked where commands run."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlaas.errors import PlacementError
from mlaas.scheduler.on_ray.packages import package_path, unpack


def put(home: Path, *entries: tuple[str, str, int]) -> str:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text, mode in entries:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, text)
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    path = package_path(home, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
    return digest


def test_files_and_what_may_be_run_come_out_as_they_went_in(tmp_path):
    folder = unpack(tmp_path, put(tmp_path, ("a/run.sh", "#!/bin/sh\n", 0o755), ("notes", "x", 0o644)))
    assert (folder / "notes").read_text() == "x"
    assert os.access(folder / "a" / "run.sh", os.X_OK)
    assert not os.access(folder / "notes", os.X_OK)


def test_many_commands_at_once_unpack_once(tmp_path):
    digest = put(tmp_path, ("notes", "x", 0o644))
    with ThreadPoolExecutor(8) as pool:
        (folder,) = set(pool.map(lambda _: unpack(tmp_path, digest), range(16)))
    assert [path.name for path in folder.iterdir()] == ["notes"]


def test_an_archive_that_is_not_what_its_name_says_is_refused(tmp_path):
    digest = put(tmp_path, ("notes", "x", 0o644))
    package_path(tmp_path, digest).write_bytes(b"torn")
    with pytest.raises(PlacementError, match="not what its name says"):
        unpack(tmp_path, digest)


def test_no_file_is_written_outside_the_folder(tmp_path):
    folder = unpack(tmp_path, put(tmp_path, ("../../../escaped", "x", 0o644)))
    assert not list(tmp_path.parent.glob("escaped"))
    assert (folder / "escaped").exists()


def test_an_empty_archive_is_an_empty_folder(tmp_path):
    assert list(unpack(tmp_path, put(tmp_path)).iterdir()) == []
