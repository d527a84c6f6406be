"""Bits per byte: each token counts once, and the sums are those of the command-line compressors."""

import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mlaas.training.evaluate import compress_bits, measure_bits, plan_windows


@given(st.integers(min_value=0, max_value=500), st.integers(min_value=2, max_value=64))
def test_windows_score_each_token_once_with_half_a_window_of_context(num_tokens: int, length: int) -> None:
    windows = plan_windows(num_tokens, length=length)
    assert [t for w in windows for t in range(w.scored, w.stop)] == list(range(num_tokens))
    for window in windows:
        assert 0 <= window.start <= window.scored < window.stop
        assert window.stop - window.start <= length
        assert window.start == 0 or window.scored - window.start >= length // 2


class Uniform(nn.Module):
    """A model that knows nothing: each of its V tokens is equally likely."""

    def forward(self, input_ids: torch.Tensor, *, use_cache: bool):
        del use_cache
        return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 64)})


@pytest.fixture
def alone(tmp_path: Path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_model_that_knows_nothing_pays_for_every_token(alone: None) -> None:
    tokens = np.arange(1000, dtype=np.uint16) % 64
    bits = measure_bits(Uniform(), tokens=tokens, end_token=0, length=32, device=torch.device("cpu"))
    assert bits == pytest.approx(1000 * math.log2(64), rel=1e-6)


@pytest.mark.parametrize("name", ["gzip", "xz"])
def test_compressors_agree_with_their_command_lines(name: str) -> None:
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    content = Path(__file__).read_bytes() * 3
    packed = subprocess.run([name, "-9", "-c"], input=content, capture_output=True, check=True).stdout
    # the command lines write other headers and check sums than the library: some tens of bytes
    assert abs(compress_bits(content)[name] / 8 - len(packed)) < 64
