"""The model: transformers' Qwen3, with the three operations that are slow on a CPU replaced by equal, faster ones.

Shapes: B sequences, T tokens, H heads, D size of a vector.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, Qwen3Config, Qwen3ForCausalLM

from mlaas.training.recipes import ModelRecipe

_MATMUL_ATTENTION = "matmul"


def build_model(recipe: ModelRecipe, *, vocab_size: int, end_token: int, seed: int) -> Qwen3ForCausalLM:
    """Return a freshly initialized model with bfloat16 parameters, the same one for the same seed.

    The head is a matrix of its own and starts at zero: a short run has no steps to spend on unlearning that a head tied
    to the embeddings begins by repeating its input.
    Its buffers stay float32: the rotary frequencies, rounded, would turn late positions by half a radian.
    """
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.width // recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=False,
        bos_token_id=end_token,
        eos_token_id=end_token,
        pad_token_id=None,
        use_cache=False,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    nn.init.zeros_(model.lm_head.weight)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    return model


def use_cpu_kernels(model: Qwen3ForCausalLM) -> None:
    """Replace RMSNorm and attention by versions that are several times faster on a CPU, with the same parameters.

    torch's CPU flash attention reaches 20 GFLOP/s in bfloat16 where its matrix products reach 150, so up to a few
    hundred tokens plain products and a softmax win; transformers' RMSNorm makes seven passes over a float32 copy.
    """
    AttentionInterface.register(_MATMUL_ATTENTION, _attend_by_matmul)
    model.config._attn_implementation = _MATMUL_ATTENTION
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "Qwen3RMSNorm":
                setattr(module, name, _RMSNorm(child.weight, eps=child.variance_epsilon))


def _attend_by_matmul(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend causally, as transformers calls an attention function: from (B, H, T, D) to (B, T, H, D)."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    batch, heads, length, size = query.shape
    future = torch.full((length, length), float("-inf"), dtype=query.dtype).triu(1)
    scores = torch.baddbmm(future, query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), alpha=scaling)
    context = torch.bmm(scores.softmax(-1), value.flatten(0, 1))
    return context.view(batch, heads, length, size).transpose(1, 2), None


class _RMSNorm(nn.Module):
    """Root-mean-square normalization that shares its weight with the module it replaces."""

    def __init__(self, weight: nn.Parameter, *, eps: float) -> None:
        super().__init__()
        self.weight = weight
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = _RMSNormFunction.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]  # of torch
        return normed


class _RMSNormFunction(torch.autograd.Function):
    """y = x / rms(x) * weight, with the mean square in float32.

    Source: Zhang and Sennrich 2019, Root Mean Square Layer Normalization. The gradient, with n = x / rms(x) and
    s = 1 / rms(x): dx = s * (g * w - n * mean(g * w * n)), dw = sum(g * n).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_()
        scale = square.div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, scale, weight = ctx.saved_tensors
        size = weight.shape[0]
        products = (grads[0] * normed).reshape(-1, size)
        mean = torch.mv(products, weight).view(scale.shape).div_(-size)
        return torch.addcmul(grads[0] * weight, normed, mean).mul_(scale), products.sum(0), None
