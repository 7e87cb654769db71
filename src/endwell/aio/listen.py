"""Listening sockets: they accept connections and answer each request with a WebSocket or an HTTP response."""

from __future__ import annotations

import _socket
import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from random import random

from ..errors import RequestRefused, TooManyConnections
from ..http import Request, Response, pack
from ..options import Options
from ..protocol.closing import State
from ..protocol.connection import Connection
from ..protocol.control import ControlChannel
from ..protocol.heartbeat import HEARTBEAT
from ..protocol.negotiation import Accepted
from ..protocol.pause import Pause
from ..wire.head import RequestReader
from .admission import UNLIMITED, Admission, Permit
from .bind import unlink
from .flag import Flag
from .reactor import reactor_of
from .stream import Stream
from .syscalls import monotonic
from .tcpinfo import limit_unsent_bytes, set_user_timeout
from .tls import TLS
from .websocket import WebSocket

__all__ = ["Listener", "Opening"]

logger = logging.getLogger("endwell.server")

# A module global, because Python 3.11 looks up an Enum member with a call.
_REQUEST = Pause.REQUEST

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
#: Seconds between checks whether all openings are done.
POLL_INTERVAL = 0.01


class Listener:
    """Accepts connections and reads the head of each request.

    ``serve(opening, head)`` is called once for each connection, when the head is complete or has broken a
    rule.

    ``should_defer`` is given if other processes accept from the same sockets; this process then removes no
    socket files. It is called before an accept, with the number of running handshakes, and returns whether to leave
    the new connections to the other processes.
    """

    def __init__(
        self,
        socks: list[_socket.socket],
        options: Options,
        tls: ssl.SSLContext | None,
        serve: Callable[[Opening, Request | RequestRefused], object],
        stopping: Flag,
        should_defer: Callable[[int], bool] | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.socks = socks
        self.options = options
        self.serve = serve
        #: Connections whose opening handshake or HTTP answer is not complete.
        self.openings: set[Opening] = set()
        #: Connections that have ended for the application while TCP is still open.
        self.lingering: set[Stream] = set()
        self.reactor = reactor_of(self.loop)
        #: Set when the server begins to stop; one for all its WebSockets.
        self.stopping = stopping
        self._admission = Admission(options)
        self.tls = tls
        self._exhausted = False
        self._should_defer = should_defer
        self._deferred = False
        for sock in socks:
            set_user_timeout(sock, options)
            limit_unsent_bytes(sock)
            self._watch(sock)

    def close(self) -> None:
        """Stop listening. Existing connections continue."""
        if self._should_defer is None:
            unlink(self.socks)
        for sock in self.socks:
            self.loop.remove_reader(sock.fileno())
            sock.close()
        self.socks = []

    def _pause(self, sock: _socket.socket, seconds: float) -> None:
        self.loop.remove_reader(sock.fileno())
        self.loop.call_later(seconds, self._watch, sock)

    async def settled(self, seconds: float) -> None:
        """Wait, for at most ``seconds``, until no opening is running."""
        until = monotonic() + seconds
        # Polling, because this runs once in the life of a process, and an Event would cost every connection.
        while self.openings and monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(POLL_INTERVAL)

    def _watch(self, sock: _socket.socket) -> None:
        if sock in self.socks:
            self.loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, listening: _socket.socket) -> None:
        accepts = ACCEPTS
        if self._should_defer is not None:
            # Not twice in a row: the other processes may be busier than their numbers say.
            self._deferred = not self._deferred and self._should_defer(len(self.openings))
            if self._deferred:
                self._pause(listening, YIELD_TIME)
                return
            accepts = SHARED_ACCEPTS
        for _ in range(accepts):
            try:
                sock, address = _accepted(listening)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._exhausted = False
                return
            except OSError as exc:
                if not self._exhausted:  # log once, until the queue is empty
                    logger.error("cannot accept connections for now: %s", exc)
                self._exhausted = True
                self._pause(listening, RETRY_DELAY)
                return
            permit = self._admission.admit(address)
            if permit is None:
                sock.close()
                continue
            try:
                opening = Opening(self, sock, address, permit)
            except OSError:
                sock.close()  # disconnected already, or out of file descriptors
                permit.leave()
                continue
            self.openings.add(opening)
            opening.begin()


class Opening:
    """An accepted connection, until it becomes a WebSocket or has been answered."""

    def __init__(self, listener: Listener, sock: _socket.socket, address: object, permit: Permit) -> None:
        tls = listener.tls
        self._listener = listener
        self._permit = permit
        self._reader = RequestReader(listener.options, address, tls is not None)
        self._core = Connection(False, listener.options, monotonic(), time.time())
        layer = None if tls is None else TLS(listener.reactor, sock, tls, server=True)
        self._stream = Stream(listener.reactor, sock, self._core, address, layer)
        self._stream.receive = self._receive
        self._stream.changed = self._changed
        #: The request; None until its head is complete.
        self.request: Request | None = None
        #: Whether the answer is queued. It may not have been sent yet.
        self.answered = False

    def begin(self) -> None:
        """Start reading."""
        try:
            self._stream.settle()
        except OSError:  # the loop cannot watch another socket
            self.abort()

    @property
    def gone(self) -> bool:
        """Whether the connection has ended, so that an answer could not be delivered."""
        return self._core.state is State.ENDED

    @property
    def remote_address(self) -> object:
        """The peer's address, in the format of the socket module."""
        return self._stream.remote_address

    def wait_for_answer(self) -> None:
        """End the ``open_timeout`` of a complete request. The server bounds the time of its answer."""
        self._core.requested()

    def unsent(self) -> int:
        """Return the number of bytes of the answer that the kernel has not accepted."""
        return self._core.outbox.size

    def accept(self, request: Request, accepted: Accepted, among: set[WebSocket]) -> WebSocket:
        """Send the 101 and return the WebSocket, which is in the set ``among`` until its end."""
        stream, core = self._stream, self._core
        now = monotonic()
        core.open(accepted.serialize())
        jitter = random()  # noqa: S311  (jitter)
        control = ControlChannel(HEARTBEAT) if accepted.heartbeat else None
        core.accept(accepted.codec(False, self._listener.options.max_size), now, control, jitter)
        self._listener.openings.discard(self)
        stream.lingering = self._listener.lingering
        pack(request.headers)
        ws = WebSocket(stream, request, None, accepted.subprotocol, among, self._listener.stopping)
        if self._permit is not UNLIMITED:
            stream.closed = self._permit.leave
        if rest := self._reader.take_rest():
            core.receive(rest, now)
        stream.settle()
        return ws

    def answer(self, response: Response, exc: RequestRefused | None = None) -> None:
        """Send an HTTP answer and end the connection. ``exc`` is the broken rule, if there is one.

        There is no keep-alive: after a refused upgrade it is unknown whether the following bytes are HTTP
        (RFC 9931).
        """
        self.answered = True
        self._stream.receive = None
        self._reader.take_rest()
        self._core.refuse(response.serialize(), monotonic(), exc)
        self._stream.settle()

    def abort(self) -> None:
        """Cut the connection."""
        self._stream.abort()

    def _receive(self, data: bytes, now: float) -> None:
        head: Request | RequestRefused | None
        try:
            head = self._reader.receive(data)
        except RequestRefused as exc:
            head = exc
        if head is None:
            return
        self._stream.receive = None
        if isinstance(head, Request):
            self.request = head
            if self._permit.refused:
                head = TooManyConnections("there are too many connections; try again later")
            else:
                # Frames that come before the 101 wait in the kernel.
                self._core.pause(_REQUEST)
        self._listener.serve(self, head)

    def _changed(self, inline: bool) -> None:
        if self.gone and self in self._listener.openings:
            self._listener.openings.discard(self)
            self._permit.leave()


def _accepted(listening: _socket.socket) -> tuple[_socket.socket, object]:
    """Return the next connection and its peer's address. Raises OSError, also if there is none."""
    descriptor, address = listening._accept()  # type: ignore[attr-defined]  # missing in typeshed
    sock = _socket.socket(listening.family, listening.type, listening.proto, descriptor)
    sock.setblocking(False)
    return sock, address
