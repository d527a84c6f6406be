"""The commit of the running code: of the working directory, or of the checkout that the package is installed from."""

import subprocess
from pathlib import Path

import pytest

from mlaas.tracking.lineage import git_commit


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "v1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commit_of_the_working_directory(repository: Path) -> None:
    assert git_commit() == git(repository, "rev-parse", "HEAD")


def test_changed_files_are_not_hidden(repository: Path) -> None:
    (repository / "a.py").write_text("a = 2\n")
    assert git_commit() == git(repository, "rev-parse", "HEAD") + "-dirty"


def test_copy_without_git_asks_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commit = git_commit()
    assert commit == "unknown" or len(commit.removesuffix("-dirty")) == 40
