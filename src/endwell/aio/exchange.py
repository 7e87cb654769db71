"""One HTTP request, and the ways to answer it: with a WebSocket, with a response, or not at all."""

# size: the answer, and the way to the next request of the connection, are one state machine.

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import Context
from typing import TypeAlias

from ..errors import RequestRefused, TooManyConnections
from ..http import Accept, Headers, Response, StreamingResponse, set_body, set_link
from ..http.headers import is_plain
from ..http.request import Request, challenge_of
from ..options import Options
from ..protocol.connection import Connection
from ..protocol.deadline import after
from ..protocol.forwarding import original_request
from ..protocol.opening import accept
from ..protocol.pause import Pause
from ..protocol.responding import allows_keep_alive, complete
from ..wire.head import RequestReader
from .admission import UNLIMITED, Permit
from .body import RequestBody
from .driver import Driver
from .flag import Flag
from .opening import Answerable, ConnectionSets
from .reactor import reactor_of
from .streaming import StreamedAnswer
from .syscalls import monotonic
from .websocket import WebSocket

__all__ = ["Application", "Exchange", "Site"]


# A module global, because Python 3.11 looks up an Enum member with a call; a number, which is a C constant here.
_REQUEST = int(Pause.REQUEST)
#: Bytes that are parsed at a time. What follows the head is copied for each request, and a client can send
#: thousands of requests at once.
WINDOW = 16 * 1024
#: Bytes that are read behind a request while it is answered. More wait in the kernel.
MAX_HELD = 64 * 1024
#: More than one read behind ``MAX_HELD``.
MAX_UNREAD = 1024 * 1024


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
        #: Whether connections stay open for another request.
        self.keeps_alive = options.keep_alive_timeout is not None
        #: The openings that wait for another request, the longest-waiting one first.
        self.idle: dict[Exchange, None] = {}
        self.reactor = reactor_of(self.loop)
        #: Called with each exchange whose answer begins, and the status of the answer; None if nothing needs it.
        self.answered: Callable[[Exchange, int], object] | None = None
        #: Called with each exchange whose client has disconnected before the answer; None if nothing needs it.
        self.gone: Callable[[Exchange], object] | None = None
        #: Whether the application is being called.
        self.calling = False

    def end_keep_alive(self) -> None:
        """Close the connections that wait for another request, and the others after their answer."""
        self.keeps_alive = False
        for exchange in list(self.idle):
            exchange.close_idle()


class Exchange(Answerable):
    """One HTTP request, and the ways to answer it.

    The application is called in the event loop, once, when the head of the request is complete or has broken
    a rule. It answers then or later: with :meth:`accept` or :meth:`respond`, or with :meth:`abort`.

    After a response, a connection that is kept alive gets another exchange for its next request. This one then
    has no effect on the connection.
    """

    def __init__(
        self,
        site: Site,
        stream: Driver,
        core: Connection,
        permit: Permit,
        reader: RequestReader | None = None,
    ) -> None:
        self._init_answerable(site, core, stream, None)
        self._site = site
        #: The share of the connection in the counts of the limits.
        self.permit = permit
        self._reader = reader or RequestReader(site.options, stream.remote_address, site.tls is not None)
        stream.receive = self._receive
        stream.changed = self._changed
        #: What the application runs in; None for the context of the server.
        self.context: Context | None = None
        #: The rule that the request has broken, or the limit that it has reached; None if there is none.
        self.refusal: RequestRefused | None = None
        self._body: RequestBody | None = None
        #: Whether the client has ended its side of TCP after the request.
        self.half_closed = False
        # Called when the connection has sent something, or when the client has disconnected.
        self._watcher: Callable[[], object] | None = None
        # Bytes that came behind those that the reader has got, and where they begin.
        self._held = b""
        self._held_from = 0
        # Whether the connection is kept alive after the answer.
        self._keep = False
        # Whether the answer is queued, and how much was sent when its time began; and whether it is sent.
        self._finishing = self._finished = False
        self._sent = -1
        # The tasks that wait until the client has accepted more.
        self._waiters: set[asyncio.Future[None]] | None = None

    @property
    def gone(self) -> bool:
        """Whether the connection has ended, so that an answer could not be delivered."""
        return self.is_gone()

    def is_gone(self) -> bool:
        """:attr:`gone` as a method, whose call costs a compiled caller less."""
        return self._finished or self._core.ended

    @property
    def remote_address(self) -> object:
        """The client's address, in the format of the socket module. Behind a proxy it may differ from the peer's."""
        return self._stream.remote_address if self.request is None else self.request.remote_address

    def wait_for_answer(self) -> None:
        """End the ``open_timeout`` of a complete request. The application bounds the time of its answer."""
        self._core.requested()

    @property
    def stopping(self) -> Flag:
        """Set when the server begins to stop."""
        return self._site.stopping

    @property
    def local_address(self) -> object:
        """The address that the client has connected to, in the format of the socket module."""
        return self._stream.local_address

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

    def has_body(self) -> bool:
        """Whether the request may have a body."""
        return self._reader.has_body

    def request_body(self) -> RequestBody:
        """The body, which is also that of :attr:`request` from now on."""
        if self._body is None:
            assert self.request is not None
            self._body = RequestBody(self._stream, self._core, self.request, self)
            set_body(self.request, self._body)
        return self._body

    def take_held(self) -> bytes:
        """Return and forget some of the bytes that were read behind the head; ``b""`` if there are none."""
        return self._reader.take_rest() or self._next_held()

    def _next_held(self) -> bytes:
        start, end = self._held_from, self._held_from + WINDOW
        if end < len(self._held):
            self._held_from = end
            return self._held[start:end]
        held, self._held, self._held_from = self._held, b"", 0
        return held[start:] if start else held

    def _has_held(self) -> bool:
        return bool(self._held or self._reader.rest)

    def body_over(self, rest: bytes) -> None:
        """Nothing more of the body is read. ``rest`` came behind it."""
        self._reader.rest = rest
        if self._watcher is None:
            self._stream.receive = None
            self._core.pause(_REQUEST)
        else:
            self._hold_on()

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
        keep = self.keeps_alive() and not self._is_reading_body()
        await StreamedAnswer(self, self._stream, self.request).send(response, keep)

    def _is_reading_body(self) -> bool:
        return self._body is not None and self._body.is_arriving

    def _stop_body(self) -> None:
        if self._body is not None:
            self._body.close()

    def answer(self, response: Response, exc: BaseException | None = None) -> None:
        """Send an HTTP response. ``exc`` is the broken rule, if there is one; then the connection ends.

        It also ends after a refused upgrade, because it is unknown whether the following bytes are HTTP
        (RFC 9931).
        """
        self.answered = True
        if self._site.answered is not None:
            self._site.answered(self, response.status)
        self._keep = exc is None and self.keeps_alive() and not self._is_reading_body()
        whole = complete(response, self.request, time.time(), self._keep).serialize()
        if self._keep:
            self._core.open(whole)
            self.finish()
        else:
            self._end(whole, exc)

    def abort(self) -> None:
        """Cut the connection."""
        if not self._finished:
            self._stream.abort()

    # -- answers in parts -----------------------------------------------------------

    def keeps_alive(self) -> bool:
        """Whether the connection can stay open after an answer that begins now and whose end the client sees."""
        request = self.request
        if request is None or not self._site.keeps_alive or (self.half_closed and not self._has_held()):
            return False
        has_body = self._reader.has_body
        # A request without a body is none of CONNECT.
        if (
            not has_body
            and request.version == "1.1"
            and is_plain(request.headers)
            and not challenge_of(request)
        ):
            return True
        return allows_keep_alive(request) and (not has_body or self.request_body().can_be_skipped())

    def watch(self, watcher: Callable[[], object], half_close: bool = True) -> None:
        """Read on while the request is answered, so that a disconnect of the client is noticed.

        ``watcher()`` is called when the connection has sent something, when the client has disconnected, and
        when it has ended its side of TCP. What the client sends is held back until the end of the answer.
        Without ``half_close``, the connection ends when the client ends its side of TCP.
        """
        self._watcher = watcher
        self._stream.eof = self._eof if half_close else None
        if not self._is_reading_body():
            self._hold_on()

    def start(self, status: int, head: bytes, keep: bool) -> None:
        """Queue the head of an answer. ``keep``: it says that the connection is kept alive."""
        self.answered = True
        if self._site.answered is not None:
            self._site.answered(self, status)
        self._keep = keep
        self._core.requested()
        self._core.open(head)

    def queue(self, octets: bytes) -> None:
        """Queue a part of the answer. :meth:`flush` or :meth:`finish` sends it."""
        if octets:
            self._core.open(octets)

    def flush(self) -> bool:
        """Send what is queued, together with what follows soon.

        True if the application has sent so much in this turn of the loop that other tasks should run.
        """
        return self._stream.wrote()

    def write(self, octets: bytes) -> None:
        """Send a part of the answer."""
        self._core.open(octets)
        self._stream.settle()

    def is_full(self) -> bool:
        """Whether more than ``write_limit`` bytes wait for the client."""
        core = self._core
        return not self._finished and not core.ended and core.outbox.size > core.options.write_limit

    async def room(self) -> None:
        """Wait until at most ``write_limit`` bytes wait for the client; abort if it accepts none for too long."""
        core, loop = self._core, self._stream.loop
        while self.is_full():
            before = core.outbox.bytes_sent
            waiter = loop.create_future()
            if self._waiters is None:
                self._waiters = set()
            self._waiters.add(waiter)
            timer = loop.call_later(core.options.write_timeout or 2**31, _resolve, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                if self._waiters is not None:
                    self._waiters.discard(waiter)
            if not core.ended and core.outbox.bytes_sent == before:
                self.abort()

    def finish(self) -> None:
        """The whole answer is queued."""
        if self._keep:
            self._finishing = True
            self._stream.settle()
        else:
            self._end(b"")

    def _opened(self) -> None:
        if self._site.answered is not None:
            self._site.answered(self, 101)
        self._stream.eof = None
        if self.permit is not UNLIMITED:
            self._stream.closed = self.permit.leave

    def _take_rest(self) -> bytes:
        rest, self._held = self._reader.take_rest() + self._held[self._held_from :], b""
        self._held_from = 0
        return rest

    def _end(self, last: bytes, exc: BaseException | None = None) -> None:
        self._keep = False
        self._stop_body()
        self._stream.eof = None
        Answerable._end(self, last, exc)

    # -- from one request to the next -------------------------------------------------

    def _check_finished(self) -> None:
        """The answer is queued, and the connection may have sent some of it."""
        outbox = self._core.outbox
        if not outbox.size:
            self._finishing = False
            if self._body is not None and not self._body.is_over:
                # RFC 9112 §9.3: "A server MUST read the entire request message body or close the connection".
                self._core.limit_request(after(monotonic(), self._site.options.keep_alive_timeout))
                self._body.skip(self._skipped)
            else:
                self._follow()
        elif outbox.bytes_sent != self._sent:
            # The client may read slowly, if it accepts some bytes in time.
            self._sent = outbox.bytes_sent
            self._core.limit_request(monotonic() + self._site.options.close_timeout)

    def _skipped(self, complete: bool) -> None:
        if complete:
            self._follow()
        else:
            self._end(b"")

    def _follow(self) -> None:
        """Wait for the next request, with an exchange of its own."""
        site = self._site
        # A client may send several requests and then end its side of TCP.
        if not site.keeps_alive or (self.half_closed and not self._has_held()):
            self._end(b"")
            return
        self._finished = True
        self._release()
        following = Exchange(site, self._stream, self._core, self.permit, self._reader)
        following.half_closed = self.half_closed
        following._held, following._held_from = self._held, self._held_from
        self._held, self._held_from = b"", 0
        site.openings.discard(self)
        site.openings.add(following)
        following._await_request()

    def _await_request(self) -> None:
        self._stream.eof = None
        self._core.resume(_REQUEST)
        now = monotonic()
        if held := self.take_held():
            self._begin_request(held, now)
        else:
            self._site.idle[self] = None
            self._stream.receive = self._begin_request
            self._core.limit_request(after(now, self._site.options.keep_alive_timeout))
        self._stream.settle()

    def _begin_request(self, data: bytes, now: float) -> None:
        """The first bytes of a later request have arrived."""
        self._site.idle.pop(self, None)
        self._stream.receive = self._receive
        self._core.next_request(now, time.time())
        self._receive(data, now)

    def close_idle(self) -> None:
        """Close a connection that waits for another request, unless one has arrived."""
        if not self._stream.has_input():
            self.abort()

    # -- what the connection reports ----------------------------------------------

    def _receive(self, data: bytes, now: float) -> None:
        if len(data) > WINDOW:
            self._held = data + self._held[self._held_from :]
            self._held_from = 0
            data = self._next_held()
        try:
            self.request = self._reader.receive(data)
            while self.request is None and self._held:
                self.request = self._reader.receive(self._next_held())
        except RequestRefused as exc:
            self.refusal = exc
        if self.request is None and self.refusal is None:
            if self.half_closed:  # nothing follows
                self._end(b"")
            return
        self._stream.receive = None
        if self.request is not None and self._site.tls is not None:
            set_link(self.request, self._stream.tls_object() or True)
        if self.request is not None and self._site.options.proxy_headers:
            self._trust_proxy(self.request)
        if self.permit.refused and self.refusal is None:
            self.refusal = TooManyConnections("there are too many connections; try again later")
        if self.refusal is None:
            # Frames that come before the 101 wait in the kernel.
            self._core.pause(_REQUEST)
        self._call()

    def _call(self) -> None:
        site = self._site
        # With asyncio.eager_task_factory, the application may have answered the request before this one within
        # its call: a client that pipelines requests would make the calls recurse.
        if site.calling:
            site.loop.call_soon(self._call_later)
            return
        site.calling = True
        try:
            site.application(self)
        finally:
            site.calling = False

    def _call_later(self) -> None:
        if not self.is_gone():
            self._call()

    def _trust_proxy(self, request: Request) -> None:
        try:
            self.request = original_request(request, self._site.options.proxy_headers)
        except RequestRefused as exc:
            self.refusal = exc

    def _hold_on(self) -> None:
        self._stream.receive = self._hold
        if len(self._held) - self._held_from < MAX_HELD:
            self._core.resume(_REQUEST)

    def _hold(self, data: bytes, now: float) -> None:
        """Hold back what the client sends while the request is answered."""
        if self.answered and not self._keep and (self._body is None or not self._body.is_missing):
            return  # discarded, so that a reset is noticed
        if len(self._held) - self._held_from >= MAX_UNREAD:
            # Reading is paused, so a write has failed, and the driver reads all that is left.
            self.half_closed = True
            return
        self._held = self._held[self._held_from :] + data
        self._held_from = 0
        if len(self._held) >= MAX_HELD:
            self._core.pause(_REQUEST)

    def _eof(self, now: float) -> None:
        if self._is_reading_body():
            self._core.eof(now)
            return
        # A client may half-close TCP after its request, and still read the response.
        self.half_closed = True
        self._core.pause(_REQUEST)
        if self._watcher is not None:
            self._watcher()

    def _changed(self, inline: bool) -> None:
        if self._core.ended:
            self._gone()
            return
        if self._waiters and not self.is_full():
            self._wake()
        if self._finishing:
            self._check_finished()
        elif self._watcher is not None:
            self._watcher()

    def _gone(self) -> None:
        if self in self._site.openings:
            self._site.openings.discard(self)
            self._site.idle.pop(self, None)
            self._stop_body()
            self.permit.leave()
            self._wake()
            if self._watcher is not None:
                self._watcher()
            self._release()
            if self._site.gone is not None and not self.answered:
                self._site.gone(self)

    def _release(self) -> None:
        """Drop the references that would make this object a part of cycles."""
        self._watcher = None
        if self._body is not None:
            self._body.release()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            _resolve(waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


#: A server. It is called in the event loop for each exchange whose head is complete or has broken a rule.
Application: TypeAlias = Callable[[Exchange], object]
