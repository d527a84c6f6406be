"""What an optimizer knows, in files that fit any number of workers.

ZeRO cuts the parameters, laid end to end, into one part for each worker, so the parts change with their number. Here
each worker writes its fragments under the parameter's name and the place in it where they begin, and whoever reads
takes what it needs from all files. Nothing is gathered, nothing is stored twice, and nothing is a pickle. The bfloat16
weights are not written: they are the float32 ones, rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

_WEIGHT = "weight"
_MOMENTUM = "momentum_buffer"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_SUFFIX = ".safetensors"


def save_shard(engine: DeepSpeedEngine, folder: Path, *, rank: int) -> Path:
    """Write this worker's fragments of float32 weights and optimizer state, and return the file.

    Raises:
        OSError: the disk does not take it.
        SafetensorError: the disk does not take it.
    """
    fragments = {f"{part.name}/{part.kind}/{part.start}": part.values for part in _local(engine) if part.is_owned}
    path = folder / f"rank-{rank:05d}{_SUFFIX}"
    save_file({name: values.cpu() for name, values in fragments.items()}, path)
    return path


def load_shards(engine: DeepSpeedEngine, folder: Path, *, step: int) -> None:
    """Fill a fresh engine with what any number of workers wrote, and round its weights from it.

    Args:
        engine: of the same model and optimizer.
        folder: where all workers wrote to.
        step: optimizer steps done, which AdamW corrects its means by.
    """
    _make_optimizer_state(engine, step=step)
    wanted: dict[tuple[str, str], _Fragment] = {(part.name, part.kind): part for part in _local(engine)}
    missing = {key: part.values.numel() for key, part in wanted.items()}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  # not a mapping
                name, kind, start = key.rsplit("/", 2)
                if part := wanted.get((name, kind)):
                    missing[name, kind] -= _copy_overlap(file.get_slice(key), start=int(start), into=part)
    assert not any(missing.values()), "a checkpoint is committed whole, and of one recipe"
    engine.optimizer.update_lp_params()


@dataclass(frozen=True, kw_only=True)
class _Fragment:
    """A stretch of one parameter's values, or of one of its states, that this worker holds."""

    name: str
    """Of the parameter."""
    kind: str
    start: int
    """Place in the parameter, laid flat."""
    values: Tensor
    """A view, so that filling it fills the optimizer."""
    is_owned: bool
    """False where another worker holds the same and writes it."""


def _local(engine: DeepSpeedEngine) -> Iterator[_Fragment]:
    """Yield what this worker holds: its part of weights and moments, and Muon's momentum of each matrix it touches."""
    zero = engine.optimizer
    momenta = _momenta(zero)
    for name, parameter in engine.module.named_parameters():
        mapping = parameter._hp_mapping
        if mapping is None:
            continue
        start, place = mapping.lp_fragment_address.start, mapping.hp_fragment_address
        yield _Fragment(name=name, kind=_WEIGHT, start=start, values=mapping.hp_fragment.detach(), is_owned=True)
        state = zero.optimizer.state[zero.single_partition_of_fp32_groups[mapping.param_group_index]]
        for kind in _MOMENTS:
            if kind in state:
                values = state[kind].narrow(0, place.start, place.numel)
                yield _Fragment(name=name, kind=kind, start=start, values=values, is_owned=True)
        if parameter in momenta:
            # A matrix that lies across two parts has its whole momentum in both.
            yield _Fragment(name=name, kind=_MOMENTUM, start=0, values=momenta[parameter], is_owned=start == 0)


def _momenta(zero: Any) -> dict[Tensor, Tensor]:
    """Return Muon's momentum of each matrix that this worker touches, as views."""
    momenta: dict[Tensor, Tensor] = {}
    for index, parameters in enumerate(zero.params_in_partition):
        buffer = zero.optimizer.state[zero.single_partition_of_fp32_groups[index]].get(_MOMENTUM)
        if buffer is not None:
            momenta |= zip(parameters, buffer.split([parameter.numel() for parameter in parameters]), strict=True)
    return momenta


def _make_optimizer_state(engine: DeepSpeedEngine, *, step: int) -> None:
    """Make the state that the optimizer would make in its first step."""
    zero = engine.optimizer
    for index, group in enumerate(zero.optimizer.param_groups):
        flat = zero.single_partition_of_fp32_groups[index]
        if group.get("use_muon"):
            # DeepSpeed converts it to the type of its gradients, which loses nothing: it was saved in that.
            size = sum(parameter.numel() for parameter in zero.params_in_partition[index])
            state = {_MOMENTUM: torch.zeros(size, dtype=flat.dtype, device=flat.device)}
        else:
            state = {kind: torch.zeros_like(flat) for kind in _MOMENTS} | {"step": torch.tensor(float(step))}
        zero.optimizer.state[flat] = state


def _copy_overlap(saved: Any, *, start: int, into: _Fragment) -> int:
    """Copy the values that a slice of a file, beginning at `start`, has of a fragment; return their number."""
    (length,) = saved.get_shape()
    first, last = max(start, into.start), min(start + length, into.start + into.values.numel())
    if first >= last:
        return 0
    into.values[first - into.start : last - into.start].copy_(saved[first - start : last - start])
    return last - first
