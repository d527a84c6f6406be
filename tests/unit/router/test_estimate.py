"""An estimate of a prompt's tokens."""

from __future__ import annotations

from mlaas.router.estimate import IMAGE_TOKENS, estimate_input_tokens

USER = {"role": "user", "content": "hi"}
TOOL = {"name": "add", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}


def test_the_estimate_counts_what_a_model_reads():
    text = "The quick brown fox jumps over the lazy dog. " * 20
    plain = estimate_input_tokens({"messages": [{"role": "user", "content": text}]})
    # Twenty sentences of ten tokens each, by the tokenizers of the day.
    assert 200 <= plain <= 275
    blocks = [{"type": "text", "text": text}]
    assert estimate_input_tokens({"messages": [{"role": "user", "content": blocks}]}) == plain
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}}
    assert estimate_input_tokens({"messages": [{"role": "user", "content": [*blocks, image]}]}) == plain + IMAGE_TOKENS
    assert estimate_input_tokens({"messages": [USER], "tools": [TOOL]}) > estimate_input_tokens({"messages": [USER]})
    assert estimate_input_tokens({"input": [[1, 2, 3], [4]]}) == 4
    assert estimate_input_tokens({"prompt": "你好世界"}) == 3
    assert estimate_input_tokens({}) == 1
