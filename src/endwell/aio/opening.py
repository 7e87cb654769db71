"""The answer to a request: what is the same if endwell has read the request, and if another server has."""

from __future__ import annotations

import time
from random import random
from typing import Protocol

from ..ending import Ending
from ..http import Request, Response, pack
from ..options import Options
from ..protocol.connection import Connection
from ..protocol.control import ControlChannel, User
from ..protocol.heartbeat import HEARTBEAT
from ..protocol.negotiation import Accepted
from ..protocol.responding import complete
from .driver import Driver
from .flag import Flag
from .limiting import limiter_of
from .syscalls import monotonic
from .websocket import WebSocket

__all__ = ["Answerable", "ConnectionSets", "Opening"]


class Opening(Protocol):
    """A connection whose opening handshake or HTTP answer is not complete."""

    def abort(self) -> None:
        """Cut the connection."""

    def unsent(self) -> int:
        """Return the number of bytes of the answer that the kernel has not accepted."""


class ConnectionSets:
    """The connections of one server, and the event of its stop."""

    def __init__(self, connections: set[WebSocket]) -> None:
        #: The WebSockets that are open or closing.
        self.connections = connections
        #: Set when the server begins to stop; one for all its WebSockets.
        self.stopping = Flag()
        #: Connections whose opening handshake or HTTP answer is not complete.
        self.openings: set[Opening] = set()
        #: Connections that have ended for the application while TCP is still open.
        self.lingering: set[Driver] = set()
        #: The class of the WebSockets.
        self.websocket_type: type[WebSocket] = WebSocket


class Answerable:
    """One HTTP request, and the ways to answer it: with a WebSocket or with a response."""

    __slots__ = ("_core", "_sets", "_stream", "answered", "request")

    def __init__(
        self, sets: ConnectionSets, core: Connection, stream: Driver, request: Request | None = None
    ) -> None:
        self._init_answerable(sets, core, stream, request)

    # Not super().__init__(), which costs a compiled class thousands of instructions.
    def _init_answerable(
        self, sets: ConnectionSets, core: Connection, stream: Driver, request: Request | None
    ) -> None:
        self._sets = sets
        self._core = core
        self._stream = stream
        #: The request; None until its head is complete, and if it could not be parsed.
        self.request = request
        #: Whether the answer has begun. It may not have been sent yet.
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
        return self._core.ended

    @property
    def ending(self) -> Ending | None:
        """How the connection ended; None before."""
        return self._core.ending

    def unsent(self) -> int:
        """Return the number of bytes of the answer that the kernel has not accepted."""
        return self._core.outbox.size

    def switch(
        self, accepted: Accepted, options: Options, keep: bool = False, user: User | None = None
    ) -> WebSocket:
        """Send the response of a WebSocket, and return the WebSocket.

        ``keep``: the response cannot be computed again from the request and ``options``. ``user``: another user
        of the control channel than the heartbeat.
        """
        stream, core, request, sets = self._stream, self._core, self.request, self._sets
        assert request is not None
        now = monotonic()
        if options is not core.options:
            core.use(options)
        if options.limits:
            # Before the 101, because a key function may raise.
            address = stream.remote_address if request.remote_address is None else request.remote_address
            core.limit(limiter_of(options.limits, request, address, now))
        core.open(accepted.serialize())
        jitter = random()  # noqa: S311  (jitter)
        control = None
        if accepted.heartbeat or user is not None:
            users = (HEARTBEAT if accepted.heartbeat else None, user)
            control = ControlChannel(*[each for each in users if each is not None])
        core.accept(accepted.codec(False, options.max_size), now, control, jitter)
        self.answered = True
        sets.openings.discard(self)
        stream.receive = None
        stream.lingering = sets.lingering
        self._opened()
        pack(request.headers)
        response = accepted.response if keep else None
        new, protocol = sets.websocket_type, accepted.subprotocol
        ws = new(stream, request, response, protocol, sets.connections, sets.stopping)
        if rest := self._take_rest():
            core.receive(rest, now)
        stream.settle()
        return ws

    def answer(self, response: Response, exc: BaseException | None = None) -> None:
        """Send an HTTP response and end the connection. ``exc`` is the broken rule, if there is one.

        There is no keep-alive: after a refused upgrade it is unknown whether the following bytes are HTTP
        (RFC 9931).
        """
        self.answered = True
        self._end(complete(response, self.request, time.time()).serialize(), exc)

    def _end(self, last: bytes, exc: BaseException | None = None) -> None:
        """Queue ``last``, and end the connection after it."""
        self._stream.receive = None
        self._take_rest()
        self._core.refuse(last, monotonic(), exc)
        self._stream.settle()

    def abort(self) -> None:
        """Cut the connection."""
        self._stream.abort()

    def _opened(self) -> None:
        """The connection is one of a WebSocket from now on."""

    def _take_rest(self) -> bytes:
        """Return the bytes after the request, once."""
        raise NotImplementedError
