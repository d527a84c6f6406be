"""Which dialect speaks on which route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mlaas.providers.base import Operation
from mlaas.router.dialects.base import Dialect
from mlaas.router.dialects.chat import Chat
from mlaas.router.dialects.completions import Completions
from mlaas.router.dialects.embeddings import Embeddings
from mlaas.router.dialects.messages import CountTokens, Messages
from mlaas.router.dialects.responses import Responses

_ALL: Final[tuple[Dialect, ...]] = (Chat(), Completions(), Responses(), Messages(), CountTokens(), Embeddings())
DIALECTS: Final[Mapping[Operation, Dialect]] = {dialect.operation: dialect for dialect in _ALL}
