"""The router's file, followed."""

from __future__ import annotations

import pytest

from mlaas.errors import ConfigError
from mlaas.router.reload import ConfigReload

ONE = "models:\n  fast: {targets: [local/a]}\n"
TWO = "models:\n  fast: {targets: [local/b]}\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "router.yaml"
    path.write_text(ONE)
    return path


@pytest.fixture
def applied():
    return []


@pytest.fixture
def watched(path, applied):
    return ConfigReload(path, applied.append)


async def test_a_file_that_stays_is_not_applied_again(watched, applied, path):
    assert not await watched.check()
    path.touch()
    assert not await watched.check()
    assert applied == []


async def test_a_change_is_applied_as_a_whole(watched, applied, path):
    version = watched.state.version
    path.write_text(TWO)
    assert await watched.check()
    assert str(applied[0].models["fast"].targets[0].target) == "local/b"
    assert watched.state.version != version
    assert watched.state.refused == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("models:\n  fast:\n    targets: [nobody/x]\n", "router.yaml:3: models.fast.targets.0: nobody/x names no"),
        ("models: [", "router.yaml:1: not valid YAML"),
        (None, "cannot read the router file"),
    ],
)
async def test_an_invalid_file_is_refused_with_line_and_reason_and_the_old_one_stays(
    watched, applied, path, caplog, text, why
):
    before = watched.state.version
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    assert not await watched.check()
    assert applied == []
    assert watched.state.version == before
    assert why in watched.state.refused
    assert why in caplog.text
    assert not await watched.check()
    assert len(caplog.records) == 1
    path.write_text(TWO)
    assert await watched.check()
    assert watched.state.refused == ""


async def test_what_cannot_be_put_in_force_is_refused_too(path):
    def refuse(config):
        raise ConfigError("bad", "a virtual model asks itself")

    watched = ConfigReload(path, refuse)
    path.write_text(TWO)
    assert not await watched.check()
    assert watched.state.refused == "a virtual model asks itself"
