"""How well a model compresses text it has not seen, beside gzip and xz.

Bits per byte is the total cross-entropy of a text in bits over its length in bytes. It does not depend on the
tokenizer, so it compares models with each other and with compressors. The held-out files are one row for all: the
compressors see them concatenated in one stream, the model sees them in the same order with an end-of-text token after
each, which it pays for too.
"""

from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from mlaas.training.data import Tokens

_WINDOWS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of tokens that the model sees at once; positions count the tokens that are predicted."""

    start: int
    """First position seen."""
    scored: int
    """First position whose cost counts; those before it are context."""
    stop: int
    """Position after the last."""


def plan_windows(num_tokens: int, *, length: int) -> list[Window]:
    """Cut a row into windows that overlap by half, so each token counts once and has at least half a window of context.

    The first window has no context to give. The last window may be shorter.
    """
    stride = max(1, length // 2)
    first = [Window(start=0, scored=0, stop=min(length, num_tokens))] if num_tokens else []
    return first + [
        Window(start=min(scored + stride, num_tokens) - length, scored=scored, stop=min(scored + stride, num_tokens))
        for scored in range(length, num_tokens, stride)
    ]


@torch.no_grad()
def measure_bits(model: nn.Module, *, tokens: Tokens, end_token: int, length: int, device: torch.device) -> float:
    """Return the total cost of a row of tokens in bits; every rank calls this and has a share of the windows.

    Args:
        model: a causal language model; rank-local and equal on all ranks.
        tokens: the row. The first token is predicted from the end-of-text token.
        end_token: the end-of-text token.
        length: longest context of the model, in tokens.
        device: where the model is.
    """
    row = torch.cat([torch.tensor([end_token]), torch.from_numpy(tokens.astype("int64"))])
    windows = plan_windows(len(tokens), length=length)[dist.get_rank() :: dist.get_world_size()]
    total = torch.zeros((), dtype=torch.float64, device=device)
    model.eval()
    for batch in _same_length_batches(windows):
        seen = torch.stack([row[window.start : window.stop + 1] for window in batch]).to(device)
        logits = model(input_ids=seen[:, :-1], use_cache=False).logits
        for window, window_logits, targets in zip(batch, logits, seen[:, 1:], strict=True):
            context = window.scored - window.start
            total += functional.cross_entropy(window_logits[context:].float(), targets[context:], reduction="sum")
    dist.all_reduce(total)
    return total.item() / math.log(2)


def compress_bits(content: bytes) -> dict[str, int]:
    """Return the size in bits that `gzip -9` and `xz -9` give to a text."""
    return {
        "gzip": 8 * len(gzip.compress(content, compresslevel=9)),
        "xz": 8 * len(lzma.compress(content, preset=9)),
    }


def _same_length_batches(windows: Sequence[Window]) -> list[list[Window]]:
    groups: dict[int, list[Window]] = {}
    for window in windows:
        groups.setdefault(window.stop - window.start, []).append(window)
    return [
        group[i : i + _WINDOWS_AT_ONCE] for group in groups.values() for i in range(0, len(group), _WINDOWS_AT_ONCE)
    ]
