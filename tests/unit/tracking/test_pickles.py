"""What counts as a pickle: by suffix, by first bytes, and inside torch's archives; safetensors never does."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mlaas.tracking.registry import find_pickle


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_under_an_innocent_name(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "data.json").write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    assert find_pickle(tmp_path) == tmp_path / "deep" / "data.json"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "state.pt", "model.pkl", "model.joblib"])
def test_suffix_alone_is_enough(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert find_pickle(tmp_path) == tmp_path / name


def test_archive_of_torch_under_another_name(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.safetensors")
    assert find_pickle(tmp_path) == tmp_path / "weights.safetensors"


def test_safetensors_whose_length_looks_like_a_pickle(tmp_path: Path) -> None:
    """A header of 640 bytes starts with 80 02, as a pickle of protocol 2 does."""
    path = tmp_path / "model.safetensors"
    for padding in range(1000):
        save_file({"a": np.zeros(1, np.float32)}, path, metadata={"padding": "x" * padding})
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert find_pickle(tmp_path) is None
