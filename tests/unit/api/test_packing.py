"""Working directories as archives."""

from __future__ import annotations

import random
import stat
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from mlaas.api import package_folder, packing
from mlaas.api.package_folder import PackageFolder, is_digest
from mlaas.api.packing import pack
from mlaas.errors import ConfigError, InvalidRequest
from mlaas.scheduler.on_ray.packages import unpack


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "code"
    for name, text in {"a.py": "1", "sub/b.txt": "2", ".venv/lib.py": "x", "__pycache__/a.pyc": "x"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def names(archive: bytes) -> list[str]:
    return zipfile.ZipFile(BytesIO(archive)).namelist()


def test_the_same_files_give_the_same_digest_whenever_they_were_written(folder: Path) -> None:
    first = pack(folder)
    (folder / "a.py").write_text("other")
    other = pack(folder)
    (folder / "a.py").write_text("1")
    assert pack(folder) == first
    assert other.digest != first.digest
    assert is_digest(first.digest)


def test_caches_stay_at_home(folder: Path) -> None:
    assert names(pack(folder).archive) == ["a.py", "sub/b.txt"]


def test_of_a_checkout_what_git_would_keep_is_packed(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("sub/\n.venv/\n__pycache__/\n")
    (folder / "new.py").write_text("not added yet")
    assert names(pack(folder).archive) == [".gitignore", "a.py", "new.py"]


def test_a_package_comes_out_as_it_went_in(folder: Path, tmp_path: Path) -> None:
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    package = pack(folder)
    store = PackageFolder(home=tmp_path / "home")
    assert not store.has(package.digest)
    assert store.put(package.archive) == package.digest
    assert store.has(package.digest)
    unpacked = unpack(tmp_path / "home", package.digest)
    assert (unpacked / "sub" / "b.txt").read_text() == "2"
    assert (unpacked / "run.sh").stat().st_mode & stat.S_IXUSR
    assert not (unpacked / "a.py").stat().st_mode & stat.S_IXUSR


def test_a_folder_that_is_too_large_names_its_largest_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_PACKAGE_BYTES", 1000)
    (folder / "big.bin").write_bytes(random.Random(1).randbytes(2000))
    with pytest.raises(ConfigError, match=r"largest: big\.bin"):
        pack(folder)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        pack(tmp_path / "nowhere")


def test_a_bomb_is_refused_before_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2_000_000))
    monkeypatch.setattr(package_folder, "MAX_UNPACKED_BYTES", 1_000_000)
    with pytest.raises(InvalidRequest, match="at most"):
        PackageFolder(home=tmp_path).put(content.getvalue())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("digest", ["", "../mlaas", "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_a_digest_names_no_other_file(tmp_path: Path, digest: str) -> None:
    assert not is_digest(digest)
    assert not PackageFolder(home=tmp_path).has(digest)
