"""One HTTP request, and the ways to answer it: with a WebSocket, with a response, or not at all."""

from __future__ import annotations

import _socket
import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TypeAlias

from ..errors import RequestRefused, TooManyConnections
from ..http import Accept, Headers, Request, Response, StreamingResponse, set_body, set_link
from ..options import Options
from ..protocol.connection import Connection
from ..protocol.forwarding import original_request
from ..protocol.opening import accept
from ..protocol.pause import Pause
from ..wire.head import RequestReader
from .admission import UNLIMITED, Permit
from .body import RequestBody
from .choice import driver_of
from .opening import Answerable, ConnectionSets
from .reactor import reactor_of
from .streaming import StreamedAnswer
from .syscalls import monotonic
from .websocket import WebSocket

__all__ = ["Application", "Exchange", "Site"]


# A module global, because Python 3.11 looks up an Enum member with a call.
_REQUEST = Pause.REQUEST


class Site(ConnectionSets):
    """What all exchanges of one listener share."""

    def __init__(
        self,
        options: Options,
        tls: ssl.SSLContext | None,
        application: Application,
        connections: set[WebSocket],
    ) -> None:
        super().__init__(connections)
        self.loop = asyncio.get_running_loop()
        self.options = options
        self.tls = tls
        self.application = application
        self.reactor = reactor_of(self.loop)


class Exchange(Answerable):
    """One HTTP request on a connection of its own, and the ways to answer it.

    The application is called in the event loop, once, when the head of the request is complete or has broken
    a rule. It answers then or later: with :meth:`accept` or :meth:`respond`, or with :meth:`abort`.
    """

    def __init__(self, site: Site, sock: _socket.socket, address: object, permit: Permit) -> None:
        tls = site.tls
        core = Connection(False, site.options, monotonic(), time.time())
        super().__init__(site, core, driver_of(site.reactor, sock, core, address, tls))
        self._site = site
        self._permit = permit
        self._reader = RequestReader(site.options, address, tls is not None)
        self._stream.receive = self._receive
        self._stream.changed = self._changed
        #: The rule that the request has broken, or the limit that it has reached; None if there is none.
        self.refusal: RequestRefused | None = None
        self._body: RequestBody | None = None
        self._streamed: StreamedAnswer | None = None

    @property
    def remote_address(self) -> object:
        """The client's address, in the format of the socket module. Behind a proxy it may differ from the peer's."""
        return self._stream.remote_address if self.request is None else self.request.remote_address

    def wait_for_answer(self) -> None:
        """End the ``open_timeout`` of a complete request. The application bounds the time of its answer."""
        self._core.requested()

    # -- answers ----------------------------------------------------------------

    async def accept(
        self,
        *,
        subprotocol: str | None = None,
        headers: Headers | Mapping[str, str] | Iterable[tuple[str, str]] = (),
        options: Options | None = None,
    ) -> WebSocket:
        """Answer with a WebSocket.

        Args:
            subprotocol: One of the subprotocols that the client offers. None: the one that ``options``
                selects.
            headers: More fields of the response.
            options: The options of the connection. None: those of the listener.

        Raises:
            RequestRefused: The request does not ask for a WebSocket in the right way, or ``options`` do not
                allow it. Nothing was sent.
            ValueError: The client does not offer ``subprotocol``, or ``headers`` has a field of the
                handshake. Nothing was sent.
            ConnectionError: The client has disconnected.
        """
        assert self.request is not None, "the request has no head"
        options = options or self._site.options
        accepted = accept(self.request, options)
        kept = accepted.add(self.request, Accept(subprotocol=subprotocol, headers=headers))
        if self.gone:
            raise ConnectionResetError("the client has disconnected")
        return self.switch(accepted, options, kept)

    async def body(self) -> AsyncIterator[bytes]:
        """The body of the request, part by part: ``async for chunk in exchange.body()``.

        Raises:
            RequestRefused: The body is malformed, incomplete, too large or too slow.
        """
        body = self.request_body()
        while chunk := await body.chunk():
            yield chunk

    def request_body(self) -> RequestBody:
        """The body, which is also that of :attr:`request` from now on."""
        if self._body is None:
            assert self.request is not None
            rest = self._reader.take_rest()
            self._body = RequestBody(self._stream, self._core, self.request, rest)
            set_body(self.request, self._body)
        return self._body

    def seconds_left(self, seconds: float) -> float:
        """How much of ``seconds`` is left since the end of the body; 0 or less if the body came with the head."""
        body = self._body
        if body is None or body.is_arriving:
            return 0.0 if body is None else seconds
        return body.completed_at + seconds - monotonic()

    async def respond(self, response: Response) -> None:
        """Answer with an HTTP response, and end the connection.

        For a :meth:`Response.stream`, whose chunks must be an async iterable, the call returns when all of it
        is sent or queued. If the iterable raises, the connection is aborted, and the exception is raised here.
        """
        if not isinstance(response, StreamingResponse):
            self.answer(response)
            return
        assert self.request is not None
        self.answered = True
        self._stop_body()
        self._core.requested()
        self._streamed = StreamedAnswer(self._stream, self._core, self.request)
        await self._streamed.send(response)

    def _stop_body(self) -> None:
        if self._body is not None:
            self._body.close()

    def answer(self, response: Response, exc: BaseException | None = None) -> None:
        """See :meth:`Answerable.answer`."""
        self._stop_body()
        super().answer(response, exc)

    def _opened(self) -> None:
        if self._permit is not UNLIMITED:
            self._stream.closed = self._permit.leave

    def _take_rest(self) -> bytes:
        return self._reader.take_rest()

    # -- what the connection reports ----------------------------------------------

    def _receive(self, data: bytes, now: float) -> None:
        try:
            self.request = self._reader.receive(data)
        except RequestRefused as exc:
            self.refusal = exc
        if self.request is None and self.refusal is None:
            return
        self._stream.receive = None
        if self.request is not None and self._site.tls is not None:
            set_link(self.request, self._stream.tls_object() or True)
        if self.request is not None and self._site.options.proxy_headers:
            self._trust_proxy(self.request)
        if self._permit.refused and self.refusal is None:
            self.refusal = TooManyConnections("there are too many connections; try again later")
        if self.refusal is None:
            # Frames that come before the 101 wait in the kernel.
            self._core.pause(_REQUEST)
        self._site.application(self)

    def _trust_proxy(self, request: Request) -> None:
        try:
            self.request = original_request(request, self._site.options.proxy_headers)
        except RequestRefused as exc:
            self.refusal = exc

    def _changed(self, inline: bool) -> None:
        if self._streamed is not None:
            self._streamed.changed()
        if self.gone and self in self._site.openings:
            self._stop_body()
            self._site.openings.discard(self)
            self._permit.leave()


#: A server. It is called in the event loop for each exchange whose head is complete or has broken a rule.
Application: TypeAlias = Callable[[Exchange], object]
