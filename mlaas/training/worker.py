"""What each process of a gang does, under Ray Train or not: build, train, measure, export."""

from __future__ import annotations

import json

import torch
import torch.distributed as dist
from tokenizers import Tokenizer

from mlaas.training.checkpoint import CheckpointStore
from mlaas.training.data import PackedSequences, TokenizedSplit, end_of_text_id
from mlaas.training.evaluate import measure_bits
from mlaas.training.export import export_model
from mlaas.training.folder import RunFolder, replace_text
from mlaas.training.leaving import LeaveWatch
from mlaas.training.loop import quiet_libraries, start_engine, train
from mlaas.training.model import build_model, use_cpu_kernels
from mlaas.training.progress import ProgressFile
from mlaas.training.recipes import Recipe


def run_worker(recipe: Recipe, *, folder: RunFolder, device: torch.device) -> None:
    """Take part in a run until its end, or until the driver asks to leave; every rank calls this, within a group.

    Args:
        recipe: what to do.
        folder: the run's folder, with its corpus prepared.
        device: where this rank computes.

    Raises:
        CheckpointError: a checkpoint could not be written.
    """
    quiet_libraries()
    tokenizer = Tokenizer.from_file(str(folder.tokenizer))
    vocab_size, end_token = tokenizer.get_vocab_size(), end_of_text_id(tokenizer)
    model = build_model(recipe.model, vocab_size=vocab_size, end_token=end_token, seed=recipe.train.seed)
    if device.type == "cpu":
        torch.set_num_threads(recipe.gang.threads)
        use_cpu_kernels(model)
    training = TokenizedSplit.load(folder.corpus / "training")
    is_finished = train(
        start_engine(recipe, model=model),
        recipe=recipe,
        sequences=PackedSequences(training, length=recipe.model.context, seed=recipe.train.seed),
        checkpoints=CheckpointStore(folder.checkpoints, keep=recipe.checkpoint.keep),
        reporter=ProgressFile(folder.progress),
        is_asked_to_leave=LeaveWatch(folder.leave_request).is_asked,
    )
    if not is_finished:
        return
    validation = TokenizedSplit.load(folder.corpus / "validation").tokens
    bits = measure_bits(model, tokens=validation, end_token=end_token, length=recipe.model.context, device=device)
    if dist.get_rank() == 0:
        export_model(model, tokenizer=tokenizer, folder=folder.model)
        replace_text(folder.measure, json.dumps({"validation_bits": bits}))
