"""The one HTTP client of the router: pooled connections, no redirects, no cookies, no proxy from the environment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from mlaas.providers.base import Failure, FailureKind, Provider, ProviderFailed, WireRequest
from mlaas.providers.failures import cut_short, unreadable
from mlaas.router.config import TimeoutConfig

# Below the keep-alive of uvicorn, which vLLM runs on (5 s), so that no connection is reused as its server closes it.
_KEEP_ALIVE_S = 4.0
_CHUNK_LIMIT_BYTES = 256 * 1024


class Egress:
    """Opens answers of upstreams. Every failure comes out as `ProviderFailed`."""

    def __init__(self, timeouts: TimeoutConfig) -> None:
        self._timeouts = timeouts
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s),
            skip_auto_headers=("user-agent", "accept"),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_CHUNK_LIMIT_BYTES,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

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
        try:
            async with asyncio.timeout(self._timeouts.first_byte_s):
                response = await self._session.post(
                    origin + request.path, data=request.body, headers=request.headers, allow_redirects=False
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ProviderFailed(translate(name, error, self._timeouts)) from error
        answer = Answer(name, response, self._timeouts)
        if response.status == 200:
            return answer
        try:
            body = await answer.read()
        finally:
            answer.close()
        raise ProviderFailed(provider.decode_error(response.status, response.headers, body))


class Answer:
    """One answer of an upstream whose head has come."""

    __slots__ = ("_name", "_response", "_timeouts")

    def __init__(self, name: str, response: aiohttp.ClientResponse, timeouts: TimeoutConfig) -> None:
        self._name = name
        self._response = response
        self._timeouts = timeouts

    @property
    def is_stream(self) -> bool:
        """Whether the answer is a stream of server-sent events."""
        return self._response.headers.get("content-type", "").startswith("text/event-stream")

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            ProviderFailed: it does not come, or not whole.
        """
        try:
            if self._response.content.is_eof():
                return await self._response.read()
            async with asyncio.timeout(self._timeouts.between_bytes_s):
                return await self._response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ProviderFailed(translate(self._name, error, self._timeouts)) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            ProviderFailed: it stalls or breaks.
        """
        read = self._response.content.readany
        while True:
            try:
                async with asyncio.timeout(self._timeouts.between_bytes_s):
                    chunk = await read()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise ProviderFailed(translate(self._name, error, self._timeouts)) from error
            if not chunk:
                return
            yield chunk

    def close(self) -> None:
        """Let go of the connection: back to the pool when the body was read to its end, else closed at once."""
        self._response.close()


def translate(name: str, error: Exception, timeouts: TimeoutConfig) -> Failure:
    """Return what a network error means. Its text stays out of the message: it may hold internal addresses."""
    if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError):
        return Failure(
            kind=FailureKind.REFUSED,
            status=503,
            code="upstream_refused",
            message=f"{name} does not accept connections",
            retry_after_s=1.0,
        )
    if isinstance(error, TimeoutError):
        return Failure(
            kind=FailureKind.TIMEOUT,
            status=504,
            code="upstream_timeout",
            message=f"{name} was silent for too long: {timeouts.first_byte_s:g} s to begin an answer, "
            f"{timeouts.between_bytes_s:g} s within it",
        )
    if isinstance(error, aiohttp.InvalidURL):
        return unreadable(name, "no answer, because its base_url is not a URL")
    return cut_short(name)
