"""The training loop: DeepSpeed ZeRO in bfloat16 over any torch.distributed group. It knows nothing of Ray."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections import ChainMap
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.engine import DeepSpeedEngine
from safetensors import SafetensorError
from torch.nn import functional
from transformers import Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from mlaas.training.checkpoint import CheckpointStore, Seal, seal
from mlaas.training.data import PackedSequences
from mlaas.training.progress import Progress
from mlaas.training.recipes import Recipe, TrainRecipe
from mlaas.training.state import load_shards, save_shard

_POSITION = "position.json"
_MAX_BUCKET = 500_000_000
"""Values that are sent at once, as DeepSpeed's own default; a small model needs no gigabyte of buffer."""
_BYTES_PER_PARAMETER = 12
"""Of a checkpoint at most: float32 weight (4) and two float32 moments (8). Source: ZeRO, section 3.1."""


class Reporter(Protocol):
    """Who is told of a run's progress."""

    def resume(self, *, step: int) -> None:
        """Note that the run goes on after `step`; what was reported beyond it is done again."""

    def report(self, progress: Progress) -> None:
        """Note how far the run is."""

    def leave(self, *, step: int) -> None:
        """Note that the run has left after `step`, as it was asked to, and that a checkpoint holds it."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands: what a checkpoint holds beside weights and optimizer."""

    step: int
    """Optimizer steps done."""
    steps: int
    """Optimizer steps planned."""
    elapsed_s: float
    """Training time so far."""


def plan_steps(position: Position, *, steps: int, budget_s: float) -> int:
    """Decide how many steps the run has: all of them, or as many as fit the budget at the pace so far.

    A run that has reached its planned end keeps it; until then each new pace may move the end both ways.

    Args:
        position: where the run stands.
        steps: steps of the recipe.
        budget_s: time allowed for the run. 0: no limit.
    """
    if not budget_s:
        return steps
    if position.step >= position.steps:
        return position.steps
    return min(steps, max(position.step + 1, int(budget_s / position.elapsed_s * position.step)))


def learning_rate_scale(*, step: int, steps: int, warmup_percent: float) -> float:
    """Return the factor on the peak learning rate: a linear rise, then a fall to zero after the last step."""
    warmup = steps * warmup_percent / 100
    return min((step + 1) / (warmup + 1), (steps - step) / (steps - warmup))


def quiet_libraries() -> None:
    """Silence what DeepSpeed, transformers and torch say below errors: it would bury the progress."""
    for name in ("DeepSpeed", "transformers", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")


def start_engine(recipe: Recipe, *, model: Qwen3ForCausalLM) -> DeepSpeedEngine:
    """Wrap the model in a DeepSpeed engine, over the process group that torch.distributed already has.

    Nothing is compiled, so no C++ compiler is needed and a first run starts as fast as the next: on CPU DeepSpeed would
    spend more than a minute on an all-reduce in shared memory, where gloo serves as well, and torch on Muon's kernels.
    """
    torch.compiler.set_stance("force_eager")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
    frequencies = model.model.rotary_emb.inv_freq.clone()
    bucket = min(_MAX_BUCKET, model.num_parameters())
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=list(model.parameters()),
        config={
            "train_micro_batch_size_per_gpu": recipe.train.sequences // dist.get_world_size(),
            "gradient_accumulation_steps": 1,
            "bf16": {"enabled": True},
            "zero_optimization": {
                "stage": recipe.train.zero_stage,
                "overlap_comm": False,
                "reduce_bucket_size": bucket,
                "allgather_bucket_size": bucket,
            },
            "gradient_clipping": recipe.train.gradient_clip,
            "zero_allow_untested_optimizer": True,
            "optimizer": _optimizer(recipe.train),
            "steps_per_print": 2**31,
        },
    )
    # DeepSpeed rounds buffers to bfloat16 as well as parameters; whoever serves the model does not.
    model.model.rotary_emb.inv_freq = frequencies.to(engine.device)
    return engine


def _optimizer(recipe: TrainRecipe) -> dict[str, Any]:
    """Return the optimizer section of DeepSpeed's configuration."""
    shared = {"betas": [0.9, 0.95], "weight_decay": recipe.weight_decay, "torch_adam": True}
    if recipe.optimizer == "adamw":
        return {"type": "AdamW", "params": {"lr": recipe.learning_rate, **shared}}
    rates = {"muon_lr": recipe.learning_rate, "adam_lr": recipe.embedding_learning_rate}
    return {"type": "Muon", "params": {**rates, "momentum": 0.95, "ns_method": "standard", **shared}}


def train(
    engine: DeepSpeedEngine,
    *,
    recipe: Recipe,
    sequences: PackedSequences,
    checkpoints: CheckpointStore,
    reporter: Reporter,
    is_asked_to_leave: Callable[[], bool],
) -> bool:
    """Train from the newest good checkpoint, if there is one, until the last step or a request; every rank calls this.

    Args:
        engine: a fresh engine; its model holds the trained weights afterwards.
        recipe: what to do.
        sequences: the training split.
        checkpoints: where the run's checkpoints are, written by any number of workers.
        reporter: told of progress, on rank 0 only.
        is_asked_to_leave: asked before each step, on rank 0 only.

    Returns:
        Whether the run has reached its end. False: it was asked to leave, and a checkpoint holds each step it did.

    Raises:
        CheckpointError: a checkpoint could not be written.
    """
    run = _Run(engine, recipe=recipe, checkpoints=checkpoints, reporter=reporter)
    control = dist.new_group(backend="gloo")
    while not run.is_finished:
        if _agree(is_asked_to_leave, group=control):
            run.report()
            run.save()
            if dist.get_rank() == 0:
                reporter.leave(step=run.position.step)
            return False
        run.step(sequences)
        if run.position.step % recipe.train.log_every == 0 or run.is_finished:
            run.report()
        if run.position.step % recipe.checkpoint.every_steps == 0 or run.is_finished:
            run.save()
    return True


def _agree(is_asked: Callable[[], bool], *, group: dist.ProcessGroup) -> bool:
    """Return on all ranks what rank 0 is asked, so that they leave after the same step.

    One byte over gloo, also where gradients go over NCCL: what the GPU has under way is not waited for.
    """
    flag = torch.tensor([dist.get_rank() == 0 and is_asked()])
    dist.broadcast(flag, src=0, group=group)
    return bool(flag)


class _Run:
    """A run on this worker: where it stands, and what is not reported or saved yet."""

    def __init__(
        self, engine: DeepSpeedEngine, *, recipe: Recipe, checkpoints: CheckpointStore, reporter: Reporter
    ) -> None:
        self._engine = engine
        self._recipe = recipe
        self._checkpoints = checkpoints
        self._reporter = reporter
        self._peaks = [group["lr"] for group in engine.optimizer.param_groups]
        self.position = _resume(engine, checkpoints=checkpoints, steps=recipe.train.steps)
        self._saved_step = self.position.step
        self._clock = _Clock(self.position.elapsed_s)
        self._losses: list[torch.Tensor] = []
        self._scale = 0.0
        if dist.get_rank() == 0:
            reporter.resume(step=self.position.step)

    @property
    def is_finished(self) -> bool:
        """Whether the last step is done."""
        return self.position.step >= self.position.steps

    def step(self, sequences: PackedSequences) -> None:
        """Do one optimizer step."""
        plan, position = self._recipe.train, self.position
        self._scale = learning_rate_scale(step=position.step, steps=position.steps, warmup_percent=plan.warmup_percent)
        for group, peak in zip(self._engine.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * self._scale
        self._losses.append(_step(self._engine, sequences=sequences, batch=plan.sequences, step=position.step))
        self.position = replace(position, step=position.step + 1)

    def report(self) -> None:
        """Report the steps since the last report, if any, and plan anew how many there are."""
        if not self._losses:
            return
        progress = _gather(
            self._losses,
            clock=self._clock,
            position=self.position,
            recipe=self._recipe,
            learning_rate=self._peaks[0] * self._scale,
        )
        self.position = Position(step=progress.step, steps=progress.steps, elapsed_s=progress.elapsed_s)
        self._losses.clear()
        if dist.get_rank() == 0:
            self._reporter.report(progress)

    def save(self) -> None:
        """Write a checkpoint, unless there is one of this step."""
        if self.position.step == self._saved_step:
            return
        _save(self._engine, position=self.position, checkpoints=self._checkpoints)
        self._saved_step = self.position.step


class _Clock:
    """Training time on this worker, over all resumes, and since the last reading."""

    def __init__(self, elapsed_s: float) -> None:
        self._start_s = time.monotonic() - elapsed_s
        self._read_s = elapsed_s

    def read(self) -> tuple[float, float]:
        """Return the seconds of the whole run and those since the last reading."""
        elapsed_s = time.monotonic() - self._start_s
        interval_s, self._read_s = elapsed_s - self._read_s, elapsed_s
        return elapsed_s, interval_s


def _step(engine: DeepSpeedEngine, *, sequences: PackedSequences, batch: int, step: int) -> torch.Tensor:
    """Do one optimizer step on this worker's share of the step's batch and return its loss."""
    local = batch // dist.get_world_size()
    tokens = torch.from_numpy(sequences.batch(step * batch + dist.get_rank() * local, count=local)).to(engine.device)
    logits = engine(input_ids=tokens[:, :-1], use_cache=False).logits
    loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    engine.backward(loss)
    engine.step()
    return loss.detach()


def _gather(
    losses: list[torch.Tensor], *, clock: _Clock, position: Position, recipe: Recipe, learning_rate: float
) -> Progress:
    """Return what has happened since the last report; loss of all workers and rank 0's time, so that all plan alike."""
    elapsed_s, interval_s = clock.read()
    is_first = float(dist.get_rank() == 0)
    mean = torch.stack(losses).double().mean() / dist.get_world_size()
    shared = torch.tensor([mean, elapsed_s * is_first, interval_s * is_first], dtype=torch.float64, device=mean.device)
    dist.all_reduce(shared)
    loss, elapsed_s, interval_s = shared.tolist()
    position = replace(position, elapsed_s=elapsed_s)
    num_tokens = len(losses) * recipe.train.sequences * recipe.model.context
    return Progress(
        step=position.step,
        steps=plan_steps(position, steps=recipe.train.steps, budget_s=recipe.train.max_minutes * 60),
        loss=loss,
        learning_rate=learning_rate,
        tokens_per_s=num_tokens / interval_s,
        elapsed_s=elapsed_s,
    )


def _resume(engine: DeepSpeedEngine, *, checkpoints: CheckpointStore, steps: int) -> Position:
    """Load the newest good checkpoint, as rank 0 sees it, on every rank."""
    found: list[str | None] = [None]
    if dist.get_rank() == 0:
        checkpoint = checkpoints.latest_good()
        found = [str(checkpoint.path) if checkpoint else None]
    dist.broadcast_object_list(found)
    if found[0] is None:
        return Position(step=0, steps=steps, elapsed_s=0.0)
    folder = Path(found[0])
    position = Position(**json.loads((folder / _POSITION).read_text(encoding="utf-8")))
    load_shards(engine, folder, step=position.step)
    return position


def _save(engine: DeepSpeedEngine, *, position: Position, checkpoints: CheckpointStore) -> None:
    """Write one checkpoint from all ranks; on a failure this rank raises, and the others end with its group.

    Each rank hashes what it has written: rank 0 alone would take as long as all of them together.
    """
    needed_bytes = _BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in engine.module.parameters())
    rank, partial = dist.get_rank(), checkpoints.partial(position.step)
    if rank == 0:
        checkpoints.begin(position.step, needed_bytes=needed_bytes)
    dist.barrier()
    seals: list[dict[str, Seal]] = [{} for _ in range(dist.get_world_size())]
    try:
        if rank == 0:
            (partial / _POSITION).write_text(json.dumps(asdict(position)), encoding="utf-8")
        shard = save_shard(engine, partial, rank=rank)
        own = {shard.name: seal(shard)}
    except (OSError, SafetensorError) as error:
        raise checkpoints.failure(position.step, error=error, needed_bytes=needed_bytes) from error
    dist.all_gather_object(seals, own)
    if rank == 0:
        checkpoints.commit(position.step, sealed=dict(ChainMap(*seals)))
    dist.barrier()
