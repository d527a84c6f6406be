"""The CPU kernels compute what transformers computes, and an exported model is loaded by transformers unchanged."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mlaas.training.data import Document, train_tokenizer
from mlaas.training.export import export_model
from mlaas.training.model import build_model, use_cpu_kernels
from mlaas.training.recipes import ModelRecipe

SHAPE = ModelRecipe(layers=2, width=32, heads=4, kv_heads=2, mlp_width=64, context=32)


def test_fast_kernels_give_the_same_logits_and_gradients() -> None:
    tokens = torch.randint(0, 300, (3, 32), generator=torch.Generator().manual_seed(1))
    results = []
    for fast in (False, True):
        model = build_model(SHAPE, vocab_size=300, end_token=0, seed=3).float()
        if fast:
            use_cpu_kernels(model)
        logits = model(input_ids=tokens, use_cache=False).logits
        logits.logsumexp(-1).square().mean().backward()
        results.append((logits.detach(), {name: p.grad for name, p in model.named_parameters()}))
    (plain, plain_grads), (quick, quick_grads) = results
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-5)
    assert plain_grads.keys() == quick_grads.keys()
    for name, grad in plain_grads.items():
        torch.testing.assert_close(quick_grads[name], grad, rtol=1e-3, atol=1e-6)


def test_same_seed_same_model() -> None:
    one, same, other = (build_model(SHAPE, vocab_size=300, end_token=0, seed=seed) for seed in (1, 1, 2))
    weight = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(one.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])


def test_exported_model_is_loaded_by_transformers(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([Document(name="a", content=b"def f(x):\n    return x\n" * 9)], vocab_size=300)
    model = build_model(SHAPE, vocab_size=tokenizer.get_vocab_size(), end_token=0, seed=1)
    tokens = torch.tensor([tokenizer.encode("def g(y):\n    return y\n").ids])
    expected = model(input_ids=tokens).logits
    use_cpu_kernels(model)
    export_model(model, tokenizer=tokenizer, folder=tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    text = AutoTokenizer.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(loaded(input_ids=tokens).logits, expected)
    assert text("def g(y):\n    return y\n")["input_ids"] == tokens[0].tolist()
    assert text.decode(tokens[0]) == "def g(y):\n    return y\n"
    assert [path.suffix for path in tmp_path.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}] == []


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "def "}], "def "),
        ([{"role": "system", "content": "import os"}, {"role": "user", "content": "def "}], "import os\ndef "),
    ],
)
def test_chat_template_is_the_text_itself(tmp_path: Path, messages: list[dict[str, str]], expected: str) -> None:
    tokenizer = train_tokenizer([Document(name="a", content=b"def f(x): pass\n")], vocab_size=280)
    model = build_model(SHAPE, vocab_size=tokenizer.get_vocab_size(), end_token=0, seed=1)
    export_model(model, tokenizer=tokenizer, folder=tmp_path / "model")
    text = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert text.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == expected
