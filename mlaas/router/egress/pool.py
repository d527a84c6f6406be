"""The router's connections to upstreams: kept open between requests, and made only to where they may go.

No proxy and no cookie is taken from anywhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import aiohappyeyeballs

from mlaas.router.egress.http1 import Closed, Connection, encode_post

# Below the keep-alive of uvicorn, which vLLM runs on (5 s). Public providers keep theirs for minutes, and a handshake
# with them costs a request tens of milliseconds.
_KEEP_ALIVE_S = {"http": 4.0, "https": 30.0}
_SWEEP_S = 4.0
# Source: RFC 8305, 5: "Connection Attempt Delay".
_NEXT_ADDRESS_DELAY_S = 0.25


class ConnectFailed(Exception):
    """No connection to the server could be made; nothing was sent."""


class PrivateAddress(Exception):
    """A public name stands for an address inside a private network, and that was not allowed; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go.

    Attributes:
        scheme: `http` or `https`.
        path: prefix of every request's path, without a slash at its end.
        authority: value of the `host` header.
        is_literal: whether the host is written as an address, and so cannot turn out to be another.
    """

    scheme: str
    host: str
    port: int
    path: str
    authority: str
    is_literal: bool


@lru_cache(maxsize=1024)
def parse_origin(url: str) -> Origin:
    """Return the parts of a base URL.

    Raises:
        ValueError: it is not a URL of http or https with a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in _KEEP_ALIVE_S or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"not a base URL: {parts.scheme}://{parts.hostname}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Origin(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        path=parts.path.rstrip("/"),
        authority=parts.netloc,
        is_literal=parts.hostname == "localhost" or _parse_address(parts.hostname) is not None,
    )


Key = tuple[str, str, int, bool]


class Pool:
    """Connections to all servers; the one used last is used first, so that few stay open.

    Args:
        connect_timeout_s: for a connection, name lookup and TLS handshake included.
    """

    def __init__(self, *, connect_timeout_s: float) -> None:
        self.connect_timeout_s = connect_timeout_s
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Key, list[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None
        self._is_closed = False

    async def post(
        self,
        origin: Origin,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        may_be_private: bool,
    ) -> Connection:
        """Send a POST and wait for the head of its answer.

        A connection from the pool that the server closes before any byte of an answer is what an idle one looks like
        at its end, so the request is then sent once more, on a fresh one.

        Args:
            origin: where to.
            path: below the origin's own.
            headers: all but `host` and `content-length`.
            body: the request's.
            timeout_s: for the answer's head.
            may_be_private: whether the origin's name may stand for an address inside a private network.

        Returns:
            A connection, which the caller gives back with `release`.

        Raises:
            ConnectFailed: no connection; nothing was sent.
            PrivateAddress: not allowed; nothing was sent.
            TimeoutError: the head has not come in time.
            Closed: the server closed the connection.
            BadAnswer: what came is no answer.
            ValueError: a header holds a line break.
        """
        request = encode_post(origin.authority, origin.path + path, headers, body)
        key = (origin.scheme, origin.host, origin.port, may_be_private)
        connection = self._take(key)
        if connection is not None:
            try:
                await connection.ask(request, timeout_s=timeout_s)
            except Closed:
                if connection.has_received:
                    raise
            except BaseException:
                connection.abort()
                raise
            else:
                return connection
        connection = await self._connect(origin, may_be_private=may_be_private)
        try:
            await connection.ask(request, timeout_s=timeout_s)
        except BaseException:
            connection.abort()
            raise
        return connection

    def release(self, connection: Connection, origin: Origin, *, may_be_private: bool) -> None:
        """Take a connection back: into the pool when its answer was read to the end, else it is closed."""
        if self._is_closed or not connection.is_reusable:
            connection.abort()
            return
        connection.rest()
        self._idle.setdefault((origin.scheme, origin.host, origin.port, may_be_private), []).append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def close(self) -> None:
        """Close the idle connections; those in use close when they are released."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for group in self._idle.values():
            for connection in group:
                connection.abort()
        self._idle.clear()

    def _take(self, key: Key) -> Connection | None:
        group = self._idle.get(key)
        oldest_s = self._loop.time() - _KEEP_ALIVE_S[key[0]]
        while group:
            connection = group.pop()
            if connection.idle_since_s > oldest_s and connection.is_open:
                return connection
            connection.abort()
        return None

    def _sweep(self) -> None:
        """Close what was idle for too long, and forget servers that have no idle connection left."""
        self._sweeper = None
        now_s = self._loop.time()
        for key, group in list(self._idle.items()):
            oldest_s = now_s - _KEEP_ALIVE_S[key[0]]
            kept = [each for each in group if each.idle_since_s > oldest_s and each.is_open]
            for connection in group:
                if connection not in kept:
                    connection.abort()
            group[:] = kept
            if not kept:
                del self._idle[key]
        if self._idle:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    async def _connect(self, origin: Origin, *, may_be_private: bool) -> Connection:
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                addresses = await _resolve(self._loop, origin, may_be_private=may_be_private)
                sock = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=_NEXT_ADDRESS_DELAY_S, interleave=1
                )
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop),
                    sock=sock,
                    ssl=self._tls_context() if origin.scheme == "https" else None,
                    server_hostname=origin.host if origin.scheme == "https" else None,
                )
        except (OSError, TimeoutError, ssl.SSLError) as error:
            raise ConnectFailed from error
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


async def _resolve(
    loop: asyncio.AbstractEventLoop, origin: Origin, *, may_be_private: bool
) -> list[aiohappyeyeballs.AddrInfoType]:
    """Return the addresses to try.

    The check is made on the very addresses that are then connected to, so that a name cannot change in between.

    Raises:
        OSError: the name is not known.
        PrivateAddress: one of them is private, and neither written out in the origin nor allowed.
    """
    found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    if not may_be_private and any(is_forbidden(str(entry[4][0]), is_literal=origin.is_literal) for entry in found):
        raise PrivateAddress
    return list(found)


def is_forbidden(address: str, *, is_literal: bool) -> bool:
    """Return whether an address may not be connected to without leave.

    Args:
        address: IPv4 or IPv6.
        is_literal: whether it was written out by who configured it. Then only link-local ones are forbidden, where
            clouds serve their machines' credentials (169.254.169.254).
    """
    parsed = _parse_address(address.partition("%")[0])
    if parsed is None:
        return True
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    parsed = mapped or parsed
    return parsed.is_link_local or not (is_literal or parsed.is_global) or parsed.is_multicast


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
