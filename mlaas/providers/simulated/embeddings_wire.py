"""OpenAI's embeddings: texts that share words lie close.

Source: OpenAI API reference, embeddings.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Mapping
from typing import Any

from mlaas.providers.simulated.script import BadRequest, count_tokens
from mlaas.providers.simulated.wire import Json

_DIMENSIONS = 64


def answer_embeddings(body: Mapping[str, Any]) -> Json:
    """Return a list of unit vectors, one for each input.

    Raises:
        BadRequest: `input` is neither a text nor a list of texts.
    """
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequest("'input' must be a text or a list of texts", "input")
    vectors = [embed(text, dimensions=body.get("dimensions") or _DIMENSIONS) for text in texts]
    is_packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _pack(vector) if is_packed else vector}
        for index, vector in enumerate(vectors)
    ]
    num_tokens = count_tokens(texts)
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


def embed(text: str, *, dimensions: int) -> list[float]:
    """Return a unit vector: the sum of a direction for each word."""
    vector = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        digest = hashlib.sha256(word.encode()).digest()
        for start in range(0, len(digest), 4):
            value = int.from_bytes(digest[start : start + 4], "big")
            vector[value % dimensions] += 1.0 if value & 0x8000_0000 else -1.0
    length = math.sqrt(sum(each * each for each in vector)) or 1.0
    return [each / length for each in vector]


def _pack(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
