"""Connecting: name resolution, TCP, TLS, the opening handshake."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from functools import cache
from random import random

from ..codes import CloseCode
from ..ending import Cause, Close, Ending, Initiator, TcpEnd
from ..errors import HandshakeError, HandshakeRejected, InvalidHandshake, ProxyError
from ..http import Response
from ..protocol.connection import Connection
from ..protocol.control import ControlChannel, User
from ..protocol.deadline import LATE, NEVER
from ..protocol.handshake import Offer
from ..protocol.negotiation import Accepted
from ..protocol.opening import confirm
from ..protocol.proxy import ProxyURI
from ..protocol.uri import WebSocketURI
from ..wire.head import ResponseReader
from ..wire.trace import trace_request, trace_response
from .choice import driver_of
from .driver import Driver
from .environment import environment_proxy
from .loop import check_system
from .reach import Reach
from .reactor import Reactor, reactor_of
from .recording import deliver
from .route import Route
from .syscalls import monotonic
from .tcpinfo import set_user_timeout
from .tunnel import Link
from .websocket import WebSocket

__all__ = ["dial"]

#: OpenSSL's reasons for an answer that is not a TLS record.
NOT_TLS = frozenset(("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"))


#: Without a proxy and without arguments about the way.
DIRECT = Route(proxy=None)


async def dial(
    uri: WebSocketURI,
    offer: Offer,
    tls: ssl.SSLContext | None = None,
    route: Route = DIRECT,
    began: float | None = None,
    user: User | None = None,
) -> WebSocket:
    """Connect and do the opening handshake within ``open_timeout``, which starts at ``began``.

    ``route`` says where to connect to, as far as ``uri`` does not. ``tls`` is the context for wss; by default it
    trusts the system's certificate authorities. ``began`` is a time of ``syscalls.monotonic()``; by default now.
    After a redirect it is the time of the first request, because ``open_timeout`` includes the redirects.
    ``user`` is this client's use of the control channel.

    Raises :exc:`HandshakeRejected` for an HTTP status other than 101, :exc:`HandshakeError` for every other
    failure, and NotImplementedError on Windows.
    """
    check_system()
    try:
        return await _dial(uri, offer, tls, route, began, user)
    except HandshakeError as failure:
        deliver(failure.ending, offer.options.recorder)
        raise


async def _dial(
    uri: WebSocketURI,
    offer: Offer,
    tls: ssl.SSLContext | None,
    route: Route,
    began: float | None,
    user: User | None,
) -> WebSocket:
    options = offer.options
    core = Connection(True, options, monotonic() if began is None else began, time.time())
    reactor = reactor_of(asyncio.get_running_loop())
    context = (tls or _default_tls()) if uri.secure and reactor.memory is None else None
    link = await _reach(reactor, core, uri, route, context)
    sock = link.sock
    set_user_timeout(sock, options)
    core.connected = True
    try:
        name = route.server_hostname or uri.host
        stream = driver_of(reactor, sock, core, _peer(sock), context, name, link)
    except OSError as exc:  # no file descriptor is left
        link.close()
        core.lost(exc, monotonic())
        raise _failure(core, uri, str(exc), "connect") from exc
    except ValueError as exc:  # TLS cannot have this name, such as one with a label above 63 characters
        link.close()
        raise _not_secure(core, uri, exc, name) from exc
    except BaseException:
        link.close()
        raise
    handshake = _ClientHandshake(stream, offer, uri, user)
    if link.received and context is None and link.transport is None:
        handshake.receive(link.received)
    return await handshake.websocket()


class _ClientHandshake:
    """A connection during the client's opening handshake."""

    def __init__(self, stream: Driver, offer: Offer, uri: WebSocketURI, user: User | None = None) -> None:
        self._stream = stream
        self._uri = uri
        self._core = stream.core
        self._offer = offer
        self._user = user
        self._reader = ResponseReader(offer.options)
        self._refusal: Response | None = None
        self._received_any = False
        self._done: asyncio.Future[WebSocket] = stream.loop.create_future()
        stream.receive = self._receive
        stream.eof = self._eof
        stream.changed = self._changed
        trace_request(offer.request)
        self._core.open(offer.request.serialize())
        stream.settle()

    async def websocket(self) -> WebSocket:
        """Return the open connection. Raises as :func:`dial` does."""
        try:
            return await self._done
        except asyncio.CancelledError:
            # close(), not fail_opening(): the connection may have opened in the same turn of the loop.
            self._core.close(Close(CloseCode.GOING_AWAY), monotonic(), Cause.CANCELLED)
            self._stream.abort()
            raise

    def receive(self, data: bytes) -> None:
        """Take bytes of the server that were read before."""
        self._receive(data, monotonic())
        self._stream.settle()

    def _receive(self, data: bytes, now: float) -> None:
        self._received_any = True
        try:
            response = self._reader.receive(data)
            if response is not None:
                self._answered(response, now)
            elif self._reader.refuses():
                self._core.refused()
        except InvalidHandshake as exc:
            refusal = self._reader.partial()
            if refusal is None:
                self._core.fail_opening(Cause.HANDSHAKE_FAILED, now, exc)
            else:
                self._answered(refusal, now)

    def _answered(self, response: Response, now: float) -> None:
        trace_response(response)
        if response.status == 101:
            self._accept(confirm(self._offer, response), now)
        else:
            self._refusal = response
            self._core.fail_opening(Cause.HANDSHAKE_REJECTED, now, initiator=Initiator.PEER)

    def _accept(self, accepted: Accepted, now: float) -> None:
        core, stream, offer = self._core, self._stream, self._offer
        control = None if self._user is None else ControlChannel(self._user)
        jitter = random()  # noqa: S311  (jitter)
        core.accept(accepted.codec(True, offer.options.max_size), now, control, jitter)
        stream.receive = stream.eof = None
        ws = WebSocket(stream, offer.request, accepted.response, accepted.subprotocol)
        if self._reader.rest:
            core.receive(self._reader.rest, now)
        if not self._done.cancelled():  # if it is cancelled, websocket() closes the connection
            self._done.set_result(ws)

    def _eof(self, now: float) -> None:
        refusal = self._reader.partial()
        if refusal is None:
            self._core.eof(now)
        else:
            self._answered(refusal, now)

    def _changed(self, inline: bool) -> None:
        ending = self._core.ending
        if ending is None or self._done.done():
            return
        if self._refusal is None:
            self._refusal = self._reader.partial()
            if self._refusal is not None:
                trace_response(self._refusal)
        if self._refusal is not None:
            self._done.set_exception(HandshakeRejected(ending, self._refusal, str(self._uri)))
        else:
            phase = (
                "tls" if ending.cause is Cause.TLS_ERROR or not self._stream.has_shaken_hands() else "http"
            )
            self._done.set_exception(_failure(self._core, self._uri, self._why(ending), phase))

    def _why(self, ending: Ending) -> str:
        """Return why no 101 came, and in which phase the handshake failed."""
        exc = ending.exception
        if isinstance(exc, InvalidHandshake):
            return f"the opening handshake failed: {exc}"
        if ending.cause is Cause.TLS_ERROR:
            plain = isinstance(exc, ssl.SSLError) and exc.reason in NOT_TLS
            return f"TLS failed: {exc}" + ("; this does not look like TLS: use ws://?" if plain else "")
        shaking = not self._stream.has_shaken_hands()
        if exc is None and ending.tcp is TcpEnd.TIMEOUT:
            phase = (
                "the TLS handshake was not complete" if shaking else "the server did not answer the request"
            )
            return f"{phase} {_in_time(self._core)}"
        when = "within the TLS handshake" if shaking else "before the server had answered the request"
        why = f"{ending.cause.meaning} {when}" + (f": {exc}" if exc is not None else "")
        # An OpenSSL server to which a client speaks plain HTTP ends TCP without an answer.
        silent = ending.cause in (Cause.PEER_VANISHED, Cause.CONNECTION_RESET) and not self._received_any
        return why + ("; if this is a TLS port, use wss://" if silent and not self._uri.secure else "")


async def _reach(
    reactor: Reactor, core: Connection, uri: WebSocketURI, route: Route, context: ssl.SSLContext | None
) -> Link:
    """Return a connected socket within the rest of ``open_timeout``. Raises HandshakeError."""
    try:
        proxy = route.explicit_proxy()
        if route.asks_environment() and reactor.memory is None:
            proxy = environment_proxy(route.towards(uri))
    except ProxyError as exc:
        core.fail_opening(Cause.HANDSHAKE_FAILED, monotonic(), exc)
        raise _failure(core, uri, str(exc), "proxy") from exc
    name = route.server_hostname or uri.host
    while True:
        began = monotonic()
        # The deadline may have passed before this call. That is no stall within it.
        limit = asyncio.timeout(None if core.deadline == NEVER else max(0.0, core.deadline - began))
        reach = Reach(route.family, route.local_addr, reactor.has_readers)
        try:
            async with limit:
                link = await _link(reactor, reach, core, uri, route, proxy)
                if link.transport is not None and context is not None:
                    reach.shaking = True
                    link = await link.shake_hands(context, name, core.options.linger_timeout + LATE)
                return link
        except (OSError, EOFError, ValueError, InvalidHandshake, ProxyError) as exc:
            # SSLCertVerificationError is an OSError, too.
            if isinstance(exc, ValueError) and not isinstance(exc, OSError) and not reach.shaking:
                raise
            if late := _lateness(limit):
                # This process was stalled. Start again, because the server may be reachable by now.
                core.stalled(began, late, monotonic())
                continue
            core.connected = reach.connected
            if not isinstance(exc, ProxyError) and (refusal := reach.refusal()) is not None:
                raise _not_reached(core, uri, proxy, refusal, None) from exc
            if reach.shaking:
                raise _not_secure(core, uri, exc, name, limit.expired()) from exc
            raise _not_reached(core, uri, proxy, exc, reach.phase if limit.expired() else None) from exc


async def _link(  # size: what a way to the server depends on
    reactor: Reactor, reach: Reach, core: Connection, uri: WebSocketURI, route: Route, proxy: ProxyURI | None
) -> Link:
    to = route.towards(uri)
    if reactor.memory is not None:
        return Link(reactor.memory.connect(to.address, to.port, route.unix_path))
    if route.unix_path is not None:
        return Link(await reach.unix(os.fspath(route.unix_path)))
    if route.sock is not None:
        try:
            route.sock.getpeername()  # raises OSError if it is closed or not connected
            route.sock.setblocking(False)
        except OSError:
            route.sock.close()
            raise
        return Link(route.sock)
    if proxy is None:
        return Link(await reach.tcp(to.address, to.port))
    tls = (route.proxy_ssl or _default_tls()) if proxy.secure else None
    return await reach.through(proxy, to.host, to.port, core.options, tls)


def _not_reached(
    core: Connection, uri: WebSocketURI, proxy: ProxyURI | None, exc: Exception, late: str | None
) -> HandshakeError:
    """Return the error for ``exc``; ``late`` is what had not happened at the end of ``open_timeout``."""
    now = monotonic()
    if late is not None:
        _end_late(core, exc, now)
        return _failure(core, uri, f"{late} {_in_time(core)}", "connect" if proxy is None else "proxy")
    if isinstance(exc, ProxyError) and exc.reply is None:  # it was not asked
        core.fail_opening(Cause.HANDSHAKE_FAILED, now, exc)
        return _failure(core, uri, f"the proxy {proxy} cannot be used: {exc}", "proxy")
    if isinstance(exc, ProxyError):
        core.fail_opening(Cause.HANDSHAKE_REJECTED, now, exc, Initiator.PEER)
        assert core.ending is not None
        if exc.response is not None:
            return HandshakeRejected(core.ending, exc.response, str(uri), str(proxy))
        return _failure(core, uri, f"the proxy {proxy} refused: {exc}", "proxy")
    if isinstance(exc, EOFError):
        core.eof(now)
        return _failure(core, uri, f"the proxy {proxy} ended TCP before it had connected", "proxy")
    if isinstance(exc, OSError):
        core.lost(exc, now, isinstance(exc, ssl.SSLError))
    else:
        core.fail_opening(Cause.HANDSHAKE_FAILED, now, exc)
    why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
    if proxy is None:
        return _failure(core, uri, why, "connect")
    return _failure(core, uri, f"the proxy {proxy} failed: {why}", "proxy")


def _end_late(core: Connection, exc: Exception, now: float) -> None:
    """``open_timeout`` has ended the opening with ``exc``."""
    core.time_up(max(now, core.deadline))  # the clock of the timer may be a little ahead
    core.fail_opening(Cause.HANDSHAKE_FAILED, now, exc)  # no effect after the other


def _not_secure(
    core: Connection, uri: WebSocketURI, exc: Exception, name: str, late: bool = False
) -> HandshakeError:
    """Return the error for ``exc`` in a TLS handshake with the server ``name`` that has no driver yet."""
    now = monotonic()
    if late:
        _end_late(core, exc, now)
        return _failure(core, uri, f"the TLS handshake was not complete {_in_time(core)}", "tls")
    if isinstance(exc, EOFError):
        core.eof(now)
        return _failure(core, uri, f"{Cause.PEER_VANISHED.meaning} within the TLS handshake", "tls")
    if isinstance(exc, ValueError) and not isinstance(exc, OSError):
        core.fail_opening(Cause.TLS_ERROR, now, exc)
        return _failure(core, uri, f"TLS cannot verify the name {name!r}: {exc}", "tls")
    core.lost(exc, now, isinstance(exc, ssl.SSLError))
    return _failure(core, uri, f"TLS failed: {exc}", "tls")


def _in_time(core: Connection) -> str:
    return f"within {core.options.open_timeout:g} s (open_timeout)"


def _failure(core: Connection, uri: WebSocketURI, why: str, phase: str) -> HandshakeError:
    """Return the error of a connection that ended before it was open. It names the server and the phase."""
    assert core.ending is not None
    failure = HandshakeError(core.ending, f"{uri}: {why}", phase)
    failure.__cause__ = core.ending.exception
    return failure


def _lateness(limit: asyncio.Timeout) -> float:
    """Return by how many seconds the timeout fired late if this process was stalled, otherwise 0."""
    when = limit.when()
    if when is None or not limit.expired():
        return 0.0
    late = asyncio.get_running_loop().time() - when
    return late if late > LATE else 0.0


def _peer(sock: socket.socket) -> object:
    try:
        return sock.getpeername()
    except OSError:
        return None  # disconnected already


@cache
def _default_tls() -> ssl.SSLContext:
    # Cached: loading the trust store takes longer than a whole connection.
    return ssl.create_default_context()
