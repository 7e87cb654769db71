"""A connection of another server, which has read the request and hands the connection over."""

from __future__ import annotations

import _socket
import asyncio
import time
from collections.abc import Callable
from typing import cast

from ..ending import Ending
from ..http import Request, Response, pack
from ..options import Options
from ..protocol.connection import Connection
from ..protocol.negotiation import Accepted
from ..protocol.pause import Pause
from ..protocol.responding import complete
from .driver import Driver
from .exchange import switch_protocols
from .flag import Flag
from .reactor import reactor_of
from .syscalls import monotonic
from .tcp import TcpDriver
from .tcpinfo import limit_unsent_bytes, set_user_timeout
from .transport import TransportDriver
from .websocket import WebSocket

__all__ = ["Handover"]

#: Bytes that are read before the request is answered. Further data waits in the kernel. Reading is the only
#: way to learn that the client has disconnected.
MAX_EARLY = 64 * 1024


def take_over(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, core: Connection, remote_address: object
) -> Driver:
    """Return a driver for the connection of ``transport``.

    Without TLS, the driver has a duplicate of the descriptor, and the transport is aborted. The peer sees neither
    FIN nor RST. Otherwise, the driver is the new protocol of the transport. Raises OSError if there is no
    descriptor left.
    """
    reactor = reactor_of(loop)
    theirs = transport.get_extra_info("socket")
    if theirs is None or transport.get_extra_info("sslcontext") is not None or not reactor.has_readers:
        return TransportDriver.over(reactor, transport, core)
    sock = _socket.socket(theirs.family, theirs.type, theirs.proto, _socket.dup(theirs.fileno()))
    try:
        sock.setblocking(False)
        set_user_timeout(sock, core.options)
        limit_unsent_bytes(sock)
        driver = TcpDriver(reactor, sock, core, remote_address)
    except BaseException:
        sock.close()
        raise
    transport.abort()
    return driver


class Handover:
    """An opening handshake whose request another server has read.

    ``changed()`` is called when the client disconnects before the answer, and ``closed()`` when TCP has ended.
    """

    __slots__ = ("_changed", "_core", "_early", "_stream", "answered", "options", "request")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        request: Request,
        options: Options,
        changed: Callable[[], object],
        closed: Callable[[], object],
    ) -> None:
        self.request = request
        self.options = options
        self._changed = changed
        self._early = b""
        self._core = Connection(False, options, monotonic(), time.time())
        # The application bounds the time of its answer.
        self._core.requested()
        self._stream = take_over(loop, transport, self._core, request.remote_address)
        self._stream.receive = self._receive
        self._stream.changed = self._check
        self._stream.closed = closed
        #: Whether the answer is queued.
        self.answered = False

    def begin(self) -> None:
        """Start reading."""
        try:
            self._stream.settle()
        except OSError:  # the loop cannot watch another socket
            self.abort()

    @property
    def protocol(self) -> asyncio.Protocol | None:
        """The protocol of the transport, which it must keep; None if the connection has left the transport."""
        driver = self._stream
        return cast("asyncio.Protocol", driver) if isinstance(driver, TransportDriver) else None

    @property
    def gone(self) -> bool:
        """Whether the connection has ended, so that an answer could not be delivered."""
        return self._core.ended

    @property
    def ending(self) -> Ending | None:
        """How the connection ended; None before."""
        return self._core.ending

    def unsent(self) -> int:
        """Return the number of bytes of the answer that the kernel has not accepted."""
        return self._core.outbox.size

    def accept(
        self,
        accepted: Accepted,
        among: set[WebSocket],
        stopping: Flag,
        lingering: set[Driver],
    ) -> WebSocket:
        """Send the 101 and return the WebSocket, which is in the set ``among`` until its end."""
        stream, core, now = self._stream, self._core, monotonic()
        switch_protocols(core, accepted, self.options, now)
        self.answered = True
        stream.receive = None
        stream.lingering = lingering
        pack(self.request.headers)
        ws = WebSocket(stream, self.request, None, accepted.subprotocol, among, stopping)
        early, self._early = self._early, b""
        if early:
            core.receive(early, now)
        stream.settle()
        return ws

    def answer(self, response: Response, exc: BaseException | None = None) -> None:
        """Send an HTTP answer and end the connection. ``exc`` is the broken rule, if there is one."""
        self.answered = True
        self._stream.receive = None
        self._early = b""
        self._core.refuse(complete(response, self.request, time.time()).serialize(), monotonic(), exc)
        self._stream.settle()

    def abort(self) -> None:
        """Cut the connection."""
        self._stream.abort()

    def _receive(self, data: bytes, now: float) -> None:
        self._early += data
        if len(self._early) >= MAX_EARLY:
            self._core.pause(Pause.REQUEST)

    def _check(self, inline: bool) -> None:
        if self.gone and not self.answered:
            self._stream.changed = None
            self._changed()
