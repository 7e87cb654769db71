"""A connection of another server, which has read the request and hands the connection over."""

from __future__ import annotations

import _socket
import asyncio
import time
from collections.abc import Callable
from typing import cast

from ..http import Request
from ..options import Options
from ..protocol.connection import Connection
from ..protocol.pause import Pause
from .driver import Driver
from .opening import Answerable, ConnectionSets
from .reactor import reactor_of
from .syscalls import monotonic
from .tcp import TcpDriver
from .tcpinfo import limit_unsent_bytes, set_user_timeout
from .transport import TransportDriver

__all__ = ["Handover"]

#: Bytes that are read before the request is answered. Further data waits in the kernel. Reading is the only
#: way to learn that the client has disconnected.
MAX_EARLY = 64 * 1024


def take_over(transport: asyncio.Transport, core: Connection, remote_address: object) -> Driver:
    """Return a driver for the connection of ``transport``.

    Without TLS, the driver has a duplicate of the descriptor, and the transport is aborted. The peer sees neither
    FIN nor RST. Otherwise, the driver is the new protocol of the transport. Raises OSError if there is no
    descriptor left.
    """
    reactor = reactor_of(asyncio.get_running_loop())
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


class Handover(Answerable):
    """A request that another server has read.

    ``changed()`` is called when the client disconnects before the answer, and ``closed()`` when TCP has ended.
    """

    __slots__ = ("_changed", "_early", "options")

    def __init__(
        self,
        sets: ConnectionSets,
        transport: asyncio.Transport,
        request: Request,
        options: Options,
        changed: Callable[[], object],
        closed: Callable[[], object],
    ) -> None:
        core = Connection(False, options, monotonic(), time.time())
        # The application bounds the time of its answer.
        core.requested()
        super().__init__(sets, core, take_over(transport, core, request.remote_address), request)
        self.options = options
        self._changed = changed
        self._early = b""
        self._stream.receive = self._receive
        self._stream.changed = self._check
        self._stream.closed = closed

    @property
    def protocol(self) -> asyncio.Protocol | None:
        """The protocol of the transport, which it must keep; None if the connection has left the transport."""
        driver = self._stream
        return cast("asyncio.Protocol", driver) if isinstance(driver, TransportDriver) else None

    def _take_rest(self) -> bytes:
        early, self._early = self._early, b""
        return early

    def _receive(self, data: bytes, now: float) -> None:
        self._early += data
        if len(self._early) >= MAX_EARLY:
            self._core.pause(Pause.REQUEST)

    def _check(self, inline: bool) -> None:
        if self.gone and not self.answered:
            self._stream.changed = None
            self._changed()
