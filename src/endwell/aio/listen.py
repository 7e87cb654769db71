"""Listening sockets: they accept connections."""

from __future__ import annotations

import _socket
import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable, Coroutine
from functools import partial
from weakref import WeakSet

from ..options import Options
from ..protocol.connection import Connection
from .acceptor import Acceptor
from .admission import Admission, Permit, Places
from .bind import unlink
from .choice import driver_of
from .exchange import Application, Exchange, Site
from .preamble import Preamble
from .syscalls import monotonic
from .tcpinfo import limit_unsent_bytes, set_user_timeout
from .websocket import WebSocket

__all__ = ["Listener"]

logger = logging.getLogger("endwell.server")

#: Maximum number of connections accepted in one turn of the loop.
ACCEPTS = 128
#: The same for a socket that several processes accept from, so that each gets a share. ``YIELD_TIME`` is
#: how many seconds a process with many connections leaves new ones to the processes with fewer.
SHARED_ACCEPTS = 8
YIELD_TIME = 0.005
#: Seconds until the next accept after the process or the system has run out of a resource, such as file
#: descriptors: accepting again immediately would only spin. New connections wait in the kernel's queue
#: meanwhile. Precedent: asyncio's ACCEPT_RETRY_DELAY.
RETRY_DELAY = 0.25
#: Maximum number of connections that wait for a place. Others stay in the kernel's queue meanwhile.
MAX_WAITING = 128
#: Seconds between checks whether all openings are done.
POLL_INTERVAL = 0.01


class Listener(Site):
    """Accepts connections. Each request on them is an :class:`Exchange`.

    ``application(exchange)`` is called once for each request, when the head is complete or has broken a
    rule. ``connections`` is the set of the WebSockets that are open or closing.

    ``should_defer`` is given if other processes accept from the same sockets; this process then removes no
    socket files. It is called before an accept, with the number of running handshakes, and returns whether to leave
    the new connections to the other processes.
    """

    def __init__(
        self,
        socks: list[_socket.socket],
        options: Options,
        tls: ssl.SSLContext | None,
        application: Application,
        connections: set[WebSocket],
        should_defer: Callable[[int], bool] | None = None,
    ) -> None:
        super().__init__(options, tls, application, connections)
        self.socks = socks
        self._admission = Admission(options)
        #: The places of several processes, if ``max_connections`` holds for all of them.
        self.places: Places | None = None
        #: Called with the peer's address and the reason if a connection has no valid preamble.
        self.refused: Callable[[object, str], object] | None = None
        self._exhausted = False
        self._should_defer = should_defer
        self._deferred = False
        _listeners.add(self)
        # On a loop without readers. In memory, a listener is its own acceptor.
        self._acceptors: dict[_socket.socket, Acceptor] = {}
        for sock in socks:
            set_user_timeout(sock, options)
            limit_unsent_bytes(sock)
            self._watch(sock)

    def share(self, places: Places) -> None:
        """Have ``max_connections`` hold for the connections of several processes."""
        self.places = self._admission.places = places

    def close(self) -> None:
        """Stop listening. Existing connections continue, but wait for no further request."""
        self.end_keep_alive()
        if self._should_defer is None:
            unlink(self.socks)
        for sock in self.socks:
            self._unwatch(sock)
            sock.close()
        self.socks = []

    def forked(self) -> None:
        """Close the descriptors in a forked child. The parent continues to listen, and keeps its socket files."""
        for acceptor in self._acceptors.values():
            acceptor.forked()
        for sock in self.socks:
            sock.close()
        self.socks = []

    def _pause(self, sock: _socket.socket, seconds: float) -> None:
        self._unwatch(sock)
        self.loop.call_later(seconds, self._watch, sock)

    async def settled(self, seconds: float) -> None:
        """Wait, for at most ``seconds``, until no opening is running."""
        until = monotonic() + seconds
        # Polling, because this runs once in the life of a process, and an Event would cost every connection.
        while self.openings and monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(POLL_INTERVAL)

    def _watch(self, sock: _socket.socket) -> None:
        if sock not in self.socks:
            return
        if self.reactor.has_readers:
            self.loop.add_reader(sock.fileno(), self._accept, sock)
        elif self.reactor.memory is not None:
            self._acceptors[sock] = sock.acceptor(self._accept)  # type: ignore[attr-defined]
        else:
            self._acceptors[sock] = Acceptor(self.loop, sock, self._accept)

    def _unwatch(self, sock: _socket.socket) -> None:
        if self.reactor.has_readers:
            self.loop.remove_reader(sock.fileno())
        elif (acceptor := self._acceptors.pop(sock, None)) is not None:
            acceptor.stop()

    def _accept(self, listening: _socket.socket) -> None:
        accepts = ACCEPTS
        if self.places is not None and self.places.waiting >= MAX_WAITING:
            self._pause(listening, YIELD_TIME)
            return
        if self._should_defer is not None and self.reactor.has_readers:
            # Not twice in a row: the other processes may be busier than their numbers say.
            self._deferred = not self._deferred and self._should_defer(len(self.openings))
            if self._deferred:
                self._pause(listening, YIELD_TIME)
                return
            accepts = SHARED_ACCEPTS
        for _ in range(accepts):
            try:
                acceptor = self._acceptors.get(listening)
                sock, address = _accepted(listening) if acceptor is None else acceptor.take()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._exhausted = False
                return
            except OSError as exc:
                if not self._exhausted:  # log once, until the queue is empty
                    logger.error("cannot accept connections for now: %s", exc)
                self._exhausted = True
                self._pause(listening, RETRY_DELAY)
                return
            if self.idle and self._admission.is_full(address):
                self._make_room(address)
            permit = self._admission.admit(address)
            if permit is not None:
                self._admitted(sock, address, permit)
            elif self.places is None:
                sock.close()
            else:
                ask = partial(self._admission.ask, self.places, address, self._make_room)
                self.openings.add(_Asking(self, sock, address, ask))

    def _admitted(self, sock: _socket.socket, address: object, permit: Permit) -> None:
        if self.options.proxy_protocol and self.reactor.memory is None:
            self.openings.add(_Preceded(self, sock, address, permit))
        else:
            self._begin(sock, address, permit)

    def _make_room(self, address: object) -> bool:
        """Close a connection that only waits for another request, if it takes the place of the new one.

        Returns whether there was one.

        Precedent: nginx closes idle connections when ``worker_connections`` is reached.
        """
        for exchange in self.idle:
            if self._admission.makes_room(exchange.permit, address):
                exchange.abort()
                return True
        return False

    def _begin(self, sock: _socket.socket, address: object, permit: Permit) -> None:
        try:
            core = Connection(False, self.options, monotonic(), time.time())
            stream = driver_of(self.reactor, sock, core, address, self.tls)
            exchange = Exchange(self, stream, core, permit)
        except OSError:
            sock.close()  # disconnected already, or out of file descriptors
            permit.leave()
            return
        self.openings.add(exchange)
        exchange.begin()


class _Asking:
    """A connection that waits for a place; one of the openings until then."""

    def __init__(
        self,
        listener: Listener,
        sock: _socket.socket,
        address: object,
        ask: Callable[[], Coroutine[object, object, Permit | None]],
    ) -> None:
        self._listener = listener
        self._sock = sock
        self._address = address
        self._task = listener.loop.create_task(self._ask(ask))

    def unsent(self) -> int:
        """Return 0: nothing is sent before the answer."""
        return 0

    def abort(self) -> None:
        """Close the connection."""
        self._listener.openings.discard(self)
        self._task.cancel()
        self._sock.close()

    async def _ask(self, ask: Callable[[], Coroutine[object, object, Permit | None]]) -> None:
        try:
            permit = await ask()
        except BaseException:
            self._listener.openings.discard(self)
            self._sock.close()
            raise
        self._listener.openings.discard(self)
        if permit is None:
            self._sock.close()
        else:
            self._listener._admitted(self._sock, self._address, permit)


class _Preceded:
    """A connection whose preamble is not complete; one of the openings until then."""

    def __init__(self, listener: Listener, sock: _socket.socket, address: object, permit: Permit) -> None:
        self._listener = listener
        self._sock = sock
        self._address = address
        self._permit = permit
        seconds = listener.options.open_timeout
        self._preamble = Preamble(sock, seconds, self._complete, self._fail, listener.reactor)
        # Not in the constructor: the listener learns of this object first.
        listener.loop.call_soon(self._preamble.begin)

    def unsent(self) -> int:
        """Return 0: nothing is sent before the preamble."""
        return 0

    def abort(self) -> None:
        """Close the connection."""
        self._listener.openings.discard(self)
        self._permit.leave()
        self._preamble.abort()

    def _complete(self, address: object) -> None:
        self._listener.openings.discard(self)
        self._listener._begin(self._sock, self._address if address is None else address, self._permit)

    def _fail(self, reason: str) -> None:
        # No answer: before TLS the client could not read it.
        self.abort()
        if self._listener.refused is not None:
            self._listener.refused(self._address, reason)


_listeners: WeakSet[Listener] = WeakSet()


def _in_child() -> None:
    for listener in list(_listeners):
        listener.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # While a child holds the descriptors, the port stays in use, and the kernel accepts connections for it.
    os.register_at_fork(after_in_child=_in_child)


def _accepted(listening: _socket.socket) -> tuple[_socket.socket, object]:
    """Return the next connection and its peer's address. Raises OSError, also if there is none."""
    descriptor, address = listening._accept()  # type: ignore[attr-defined]  # missing in typeshed
    sock = _socket.socket(listening.family, listening.type, listening.proto, descriptor)
    sock.setblocking(False)
    return sock, address
