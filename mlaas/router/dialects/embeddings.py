"""OpenAI's embeddings in front of the gateway: only for providers that have them.

Source: OpenAI API reference, embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mlaas.providers.base import Call, FieldError, Operation
from mlaas.router.dialects.chat import Chat
from mlaas.router.dialects.fields import check_types

_TYPES: Final[dict[str, tuple[type, ...]]] = {"dimensions": (int,), "encoding_format": (str,), "user": (str,)}


class Embeddings(Chat):
    """The dialect of `/v1/embeddings`."""

    operation = Operation.EMBEDDINGS

    def check(self, fields: Mapping[str, Any]) -> None:
        """Check the types of the fields that the gateway reads.

        Raises:
            FieldError: a field is missing or has the wrong type.
        """
        check_types(fields, _TYPES, least={"dimensions": 1})
        given = fields.get("input")
        if not isinstance(given, str | list) or not given:
            raise FieldError("input", "'input' must be a string or an array, and not empty")
        if fields.get("stream"):
            raise FieldError("stream", "embeddings cannot be streamed; leave 'stream' out")

    def to_chat(self, call: Call) -> Call:
        """Refuse: no chat can stand for an embedding.

        Raises:
            FieldError: always.
        """
        raise FieldError("model", f"model {call.model[:300]!r} has no embeddings; name a model that has")
