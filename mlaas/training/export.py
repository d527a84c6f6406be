"""Write a trained model as the plain files that vLLM and transformers load."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3ForCausalLM

from mlaas.training.data import END_OF_TEXT, end_of_text_id

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
)
"""A base model knows text and no roles: it continues what the messages say, one after the other."""


def export_model(model: Qwen3ForCausalLM, *, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the model in Hugging Face layout; the folder appears whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    end = end_of_text_id(tokenizer)
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=end)
    model.config.use_cache = True
    model.save_pretrained(partial)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=model.config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
