"""The one way out of the router: pooled connections, no redirects, no cookies, no proxy from the environment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping

from mlaas.providers.base import Failure, FailureKind, Provider, ProviderFailed, WireRequest
from mlaas.providers.failures import cut_short, unreadable
from mlaas.providers.vllm import LOCAL
from mlaas.router.config import TimeoutConfig
from mlaas.router.egress.http1 import BadAnswer, Closed, Connection
from mlaas.router.egress.pool import ConnectFailed, Origin, Pool, PrivateAddress, parse_origin

_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_ERROR_BYTES = 1024 * 1024
_NETWORK_ERRORS = (ConnectFailed, PrivateAddress, Closed, BadAnswer, TimeoutError, ValueError)


class Egress:
    """Opens answers of upstreams. Every failure comes out as `ProviderFailed`.

    Args:
        timeouts: bounds on silence.
        allow_private: names of providers whose `base_url` may name a host inside a private network. Hosts written as
            an address, and local replicas, need no leave.
    """

    def __init__(self, timeouts: TimeoutConfig, *, allow_private: Collection[str] = ()) -> None:
        self._timeouts = timeouts
        self._allow_private = frozenset(allow_private)
        self._pool = Pool(connect_timeout_s=timeouts.connect_s)

    def configure(self, timeouts: TimeoutConfig, *, allow_private: Collection[str]) -> None:
        """Take over other bounds; answers under way keep theirs."""
        self._timeouts = timeouts
        self._allow_private = frozenset(allow_private)
        self._pool.connect_timeout_s = timeouts.connect_s

    async def close(self) -> None:
        """Close all connections that are not in use; the others close with their answers."""
        self._pool.close()

    async def open(self, provider: Provider, origin: str, request: WireRequest) -> Answer:
        """Send a request and wait for the head of its answer.

        Args:
            provider: who reads error answers.
            origin: base URL.
            request: what to send below it.

        Returns:
            An answer with a status of 200, which the caller closes.

        Raises:
            ProviderFailed: no answer, or one with another status.
        """
        name = provider.name
        may_be_private = name == LOCAL or name in self._allow_private
        try:
            parsed = parse_origin(origin)
            connection = await self._pool.post(
                parsed,
                request.path,
                headers=request.headers,
                body=request.body,
                timeout_s=self._timeouts.first_byte_s,
                may_be_private=may_be_private,
            )
        except _NETWORK_ERRORS as error:
            raise ProviderFailed(translate(name, error, self._timeouts)) from error
        answer = Answer(name, connection, self._pool, parsed, self._timeouts, may_be_private=may_be_private)
        if answer.status == 200:
            return answer
        try:
            body = await answer.read(max_bytes=_MAX_ERROR_BYTES)
        finally:
            answer.close()
        raise ProviderFailed(provider.decode_error(answer.status, answer.headers, body))


class Answer:
    """One answer of an upstream whose head has come.

    Attributes:
        status: HTTP status.
        headers: names in lower case.
        is_stream: whether the answer is a stream of server-sent events.
    """

    __slots__ = ("_connection", "_is_closed", "_may_be_private", "_name", "_origin", "_pool", "_timeouts", "status")

    def __init__(
        self,
        name: str,
        connection: Connection,
        pool: Pool,
        origin: Origin,
        timeouts: TimeoutConfig,
        *,
        may_be_private: bool,
    ) -> None:
        self.status = connection.status
        self._name = name
        self._connection = connection
        self._pool = pool
        self._origin = origin
        self._timeouts = timeouts
        self._may_be_private = may_be_private
        self._is_closed = False

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the answer; only before `close`."""
        return {str(key, "latin-1"): str(value, "latin-1") for key, value in self._connection.headers.items()}

    @property
    def is_stream(self) -> bool:
        """Whether the answer is a stream of server-sent events; only before `close`."""
        return self._connection.headers.get(b"content-type", b"").startswith(b"text/event-stream")

    async def read(self, *, max_bytes: int = _MAX_ANSWER_BYTES) -> bytes:
        """Return the whole body.

        Raises:
            ProviderFailed: it does not come, not whole, or is over `max_bytes`.
        """
        body = await self._read()
        if self._connection.is_complete:
            return body
        pieces, num_bytes = [body], len(body)
        while piece := await self._read():
            num_bytes += len(piece)
            if num_bytes > max_bytes:
                raise ProviderFailed(unreadable(self._name, f"an answer over {max_bytes:,} bytes"))
            pieces.append(piece)
        return b"".join(pieces)

    def chunks(self) -> AsyncIterator[bytes]:
        """Return the body as it comes, piece by piece.

        Raises:
            ProviderFailed: while iterating: it stalls or breaks.
        """
        return _Chunks(self)

    def close(self) -> None:
        """Let go of the connection: back to the pool when the body was read to its end, else closed at once."""
        if not self._is_closed:
            self._is_closed = True
            self._pool.release(self._connection, self._origin, may_be_private=self._may_be_private)

    async def _read(self) -> bytes:
        try:
            return await self._connection.read(timeout_s=self._timeouts.between_bytes_s)
        except _NETWORK_ERRORS as error:
            raise ProviderFailed(translate(self._name, error, self._timeouts)) from error


class _Chunks:
    """Iterates over an answer's body. It is no generator, so that one which is left half-way needs no clean-up."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._answer._read()
        if not chunk:
            raise StopAsyncIteration
        return chunk


def translate(name: str, error: Exception, timeouts: TimeoutConfig) -> Failure:
    """Return what a network error means. Its text stays out of the message: it may hold internal addresses."""
    if isinstance(error, ConnectFailed):
        return Failure(
            kind=FailureKind.REFUSED,
            status=503,
            code="upstream_refused",
            message=f"{name} does not accept connections",
            retry_after_s=1.0,
        )
    if isinstance(error, PrivateAddress):
        return Failure(
            kind=FailureKind.DENIED,
            status=502,
            code="upstream_private",
            message=f"the host in the base_url of {name} stands for a private address; if that is meant, set "
            f"allow_private: true at providers.{name}",
        )
    if isinstance(error, TimeoutError):
        return Failure(
            kind=FailureKind.TIMEOUT,
            status=504,
            code="upstream_timeout",
            message=f"{name} was silent for too long: {timeouts.first_byte_s:g} s to begin an answer, "
            f"{timeouts.between_bytes_s:g} s within it",
        )
    if isinstance(error, BadAnswer):
        return unreadable(name, "an answer that is not HTTP/1.1 as it should be")
    if isinstance(error, ValueError):
        return unreadable(name, "nothing, because its base_url or a header for it is not valid")
    return cut_short(name)
