"""Connecting: resolve, TCP, TLS, the opening handshake."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from functools import cache
from random import random

from ..codes import CloseCode
from ..ending import Cause, Initiator
from ..errors import HandshakeFailed, HandshakeRejected, InvalidHandshake
from ..http import Response
from ..protocol.connection import Connection
from ..protocol.deadline import LATE
from ..protocol.handshake import Accepted, Offer
from ..protocol.opening import confirm
from ..protocol.uri import WebSocketURI
from ..wire.head import ResponseReader
from .commons import commons_of
from .silence import limit_silence
from .stream import Stream
from .tls import TLS
from .websocket import WebSocket

__all__ = ["dial"]


async def dial(
    uri: WebSocketURI,
    offer: Offer,
    tls: ssl.SSLContext | None = None,
    unix_path: str | os.PathLike[str] | None = None,
) -> WebSocket:
    """Connect and do the opening handshake, all within ``open_timeout``.

    ``tls`` is used for wss; by default the system's trust store is.

    Raises :exc:`HandshakeRejected` for an HTTP answer other than 101, and
    :exc:`HandshakeFailed` for everything else that keeps it from opening.
    """
    options = offer.options
    core = Connection(True, options, time.monotonic(), time.time())
    sock = await _reach(core, uri, unix_path)
    limit_silence(sock, options)
    core.connected = True
    commons, layer = commons_of(asyncio.get_running_loop()), None
    if uri.secure:
        try:
            layer = TLS(commons, sock, tls or _default_tls(), uri.host)
        except BaseException:
            sock.close()
            raise
    try:
        stream = Stream(commons, sock, core, _peer(sock), layer)
    except OSError as exc:  # there is no file descriptor left
        sock.close()
        core.lost(exc, time.monotonic())
        assert core.ending is not None
        raise HandshakeFailed(core.ending) from exc
    return await _Greeting(stream, offer).websocket()


class _Greeting:
    """A connection on which the client's opening handshake is under way."""

    def __init__(self, stream: Stream, offer: Offer) -> None:
        self._stream = stream
        self._core = stream.core
        self._offer = offer
        self._reader = ResponseReader(offer.options)
        self._refusal: Response | None = None
        self._done: asyncio.Future[WebSocket] = stream.loop.create_future()
        stream.receive = self._receive
        stream.eof = self._eof
        stream.changed = self._changed
        self._core.open(offer.request.serialize())
        stream.settle()

    async def websocket(self) -> WebSocket:
        """The connection once it is open; raises as :func:`dial` does."""
        try:
            return await self._done
        except asyncio.CancelledError:
            # close(), not fail_opening(): it may have opened in the same turn of the loop.
            self._core.close(CloseCode.GOING_AWAY, "", time.monotonic(), Cause.CANCELLED)
            self._stream.abort()
            raise

    def _receive(self, data: bytes, now: float) -> None:
        try:
            response = self._reader.receive(data)
            if response is not None and response.status == 101:
                self._accept(confirm(self._offer, response), now)
            elif response is not None:
                self._refused(response, now)
        except InvalidHandshake as exc:
            self._core.fail_opening(Cause.HANDSHAKE_FAILED, now, exc)

    def _accept(self, accepted: Accepted, now: float) -> None:
        core, stream, offer = self._core, self._stream, self._offer
        core.accept(accepted.codec(True, offer.options.max_size), now, die=random())  # noqa: S311  (jitter)
        stream.receive, stream.eof = None, core.eof
        ws = WebSocket(stream, offer.request, accepted.response, accepted.subprotocol)
        if self._reader.rest:
            core.receive(self._reader.rest, now)
        if not self._done.cancelled():  # else `websocket` is about to hear of it, and closes
            self._done.set_result(ws)

    def _refused(self, response: Response, now: float) -> None:
        self._refusal = response
        self._core.fail_opening(Cause.HANDSHAKE_REJECTED, now, initiator=Initiator.PEER)

    def _eof(self, now: float) -> None:
        response = self._reader.eof()
        if response is None:
            self._core.eof(now)
        else:
            self._refused(response, now)

    def _changed(self, inline: bool) -> None:
        ending = self._core.ending
        if ending is None or self._done.done():
            return
        if self._refusal is not None:
            self._done.set_exception(HandshakeRejected(ending, self._refusal))
            return
        failure = HandshakeFailed(ending)
        failure.__cause__ = ending.exception
        self._done.set_exception(failure)


async def _reach(
    core: Connection, uri: WebSocketURI, unix_path: str | os.PathLike[str] | None
) -> socket.socket:
    """A TCP connection within ``open_timeout``. Raises HandshakeFailed."""
    while True:
        began = time.monotonic()
        limit = asyncio.timeout(core.options.open_timeout)
        try:
            async with limit:
                return await _connect(uri, unix_path)
        except OSError as exc:
            now = time.monotonic()
            if late := _lateness(limit):
                # From the beginning, because it begins anew: it may well be there by now.
                core.stalled(began, late, now)
                continue
            if limit.expired():
                core.fail_opening(Cause.HANDSHAKE_FAILED, now, exc)
            else:
                core.lost(exc, now)
            assert core.ending is not None
            raise HandshakeFailed(core.ending) from exc


def _lateness(limit: asyncio.Timeout) -> float:
    """How late it struck, if that says that we ourselves stood still; else 0."""
    when = limit.when()
    if when is None or not limit.expired():
        return 0.0
    late = asyncio.get_running_loop().time() - when
    return late if late > LATE else 0.0


async def _connect(uri: WebSocketURI, unix_path: str | os.PathLike[str] | None) -> socket.socket:
    """A TCP connection to the first address that takes one; raises the first error if none does."""
    loop = asyncio.get_running_loop()
    if unix_path is not None:
        return await _connected(socket.AF_UNIX, os.fspath(unix_path))
    errors: list[OSError] = []
    for family, _, _, _, address in await loop.getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM):
        try:
            return await _connected(family, address)
        except OSError as exc:
            errors.append(exc)
    raise errors[0]


async def _connected(family: int, address: str | tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _peer(sock: socket.socket) -> object:
    try:
        return sock.getpeername()
    except OSError:
        return None  # gone already


@cache
def _default_tls() -> ssl.SSLContext:
    # Once: loading the trust store takes longer than a whole connection.
    return ssl.create_default_context()
