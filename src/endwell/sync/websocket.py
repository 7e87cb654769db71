"""The blocking WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from ..aio.callbacks import check_callback
from ..codes import CloseCode
from ..ending import Cause, Close, Ending
from ..errors import ConnectionClosed, UnsupportedByProtocol
from ..http import Request, Response, TLSInfo
from ..text import utf8
from ..wire.codec import NO_BINARY, Buffer, octets
from .bridge import Bridge
from .flag import ThreadFlag

__all__ = ["WebSocket", "bridge_of"]


class WebSocket:
    """One open WebSocket connection with blocking methods.

    ``endwell.sync.connect()`` returns it, and plain handlers of a :class:`endwell.Server` get it. It
    behaves like the asyncio :class:`endwell.WebSocket`, without ``await``.

    All methods may be called from any thread, and from several at the same time: each message goes to
    one of the receiving threads, and sending threads take turns. An event loop in another thread
    keeps the connection: it answers pings, echoes a Close and notices a dropped connection even while no
    method is called. Ctrl-C interrupts every call in the main thread.

    Leaving a ``with ws:`` block closes with 1000. A connection without references is closed with
    1000 too.

    Methods that would have to wait raise :exc:`ConcurrencyError` in the thread of the event loop. In a
    forked child all of them do.

    Example:
        ```python
        import endwell
        from endwell.sync import connect, serving

        server = endwell.Server()

        @server.websocket("/")
        def echo(ws):
            for message in ws:
                ws.send(message)

        with serving(server, port=0):
            with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                ws.send("hello")
                print(ws.recv())
            print(ws.ending)
        ```
    """

    __slots__ = ("__weakref__", "_bridge", "_stopping", "_ws")

    def __init__(self, bridge: Bridge, stopping: ThreadFlag | None = None) -> None:
        self._bridge = bridge
        self._ws = bridge.ws
        self._stopping = stopping

    # -- state ----------------------------------------------------------------

    @property
    def request(self) -> Request:
        """The request of the opening handshake. On a server its ``params`` are those of the route."""
        return self._ws.request

    @property
    def response(self) -> Response:
        """The 101 response of the opening handshake."""
        return self._ws.response

    @property
    def subprotocol(self) -> str | None:
        """The negotiated subprotocol; None if there is none."""
        return self._ws.subprotocol

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent.

        After a Close of the peer it stays true while messages that arrived before the Close are unread or
        being handled, for at most ``answer_timeout``: a ``while ws.is_open`` loop with :meth:`read` handles
        and answers all of them. After any other end it is false immediately.
        """
        return self._bridge.is_open

    @property
    def ending(self) -> Ending | None:
        """How the connection ended; None while it is open."""
        return self._bridge.ending

    @property
    def close_code(self) -> int | None:
        """The close code that a browser would report; None while the connection is open.

        It is the code of the peer's Close, 1005 if that Close had no code, or 1006 if no Close came.
        """
        return self._ws.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason in the peer's Close, ``""`` if there is none; None while the connection is open."""
        return self._ws.close_reason

    @property
    def subject(self) -> str | None:
        """The user or account that :meth:`authorize` has named; None before."""
        return self._ws.subject

    @property
    def draining(self) -> ThreadFlag:
        """Set when the server begins to stop, before it closes the first connection.

        It works as a truth value and as a threading.Event: ``ws.draining.wait(timeout)``. A handler
        that returns while it is set closes with the code and the reason of the stop. It is never set for
        a client.
        """
        if self._stopping is None:
            self._stopping = ThreadFlag()
        return self._stopping

    @property
    def latency(self) -> float | None:
        """The round trip of the last ping in seconds; None before the first pong."""
        return self._ws.latency

    @property
    def smoothed_latency(self) -> float | None:
        """The moving average of :attr:`latency` in seconds; None before the first pong.

        Each new round trip has a weight of 1/8, as in TCP (RFC 6298 §2.3).
        """
        return self._ws.smoothed_latency

    @property
    def messages_in(self) -> int:
        """Number of complete messages received, including those that are not read yet.

        Like ``messages_out``, ``bytes_in``, ``bytes_out`` and ``dropped_messages``, it counts from the opening
        on. After the end, these five are those of the :class:`endwell.Ending`.
        """
        return self._ws.messages_in

    @property
    def messages_out(self) -> int:
        """Number of messages accepted by :meth:`send`."""
        return self._bridge.messages_out()

    @property
    def bytes_in(self) -> int:
        """Number of bytes received after the opening handshake."""
        return self._ws.bytes_in

    @property
    def bytes_out(self) -> int:
        """Number of bytes sent after the opening handshake; those that wait in the send queue do not count."""
        ending = self.ending
        return self._bridge.bytes_out() if ending is None else ending.bytes_out

    @property
    def dropped_messages(self) -> int:
        """Number of messages that were dropped.

        Those are messages that arrived after the local Close while the queue was full, and those above a
        :class:`endwell.Limit`.
        """
        return self._ws.dropped_messages

    @property
    def remote_address(self) -> object:
        """The peer's address, in the format of the socket module: ``(host, port, ...)``; ``""`` on a Unix socket.

        Behind a proxy of the option ``proxy_headers`` or ``proxy_protocol``, it is the client's address.
        """
        return self._ws.remote_address

    @property
    def tls(self) -> TLSInfo | None:
        """The TLS session, with the certificate of the peer; None without TLS.

        It is that of the connection to this process, even behind a proxy.
        """
        return self._ws.tls

    @property
    def local_address(self) -> object:
        """The local address, in the format of the socket module."""
        return self._ws.local_address

    def __repr__(self) -> str:
        return repr(self._ws)

    # -- messages -------------------------------------------------------------

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Return the next message: ``str`` for text, ``bytes`` for binary.

        Messages that arrived before the end of the connection are returned first.

        Args:
            timeout: Seconds to wait. 0 does not wait. Default: None, no limit.

        Raises:
            ConnectionClosed: If the connection has ended and there are no more messages.
            TimeoutError: If no message arrives within ``timeout``. No message is lost.
        """
        message = self._bridge.receive(timeout)
        if message is None:
            raise ConnectionClosed.of(self._bridge.wait_closed(None))
        return message

    def read(self, timeout: float | None = None) -> str | bytes | None:
        """Return the next message, or None if the connection has ended and there are no more messages.

        Args:
            timeout: Seconds to wait. 0 does not wait. Default: None, no limit.

        Raises:
            TimeoutError: If no message arrives within ``timeout``. No message is lost.
        """
        return self._bridge.receive(timeout)

    def __iter__(self) -> WebSocket:
        return self

    def __next__(self) -> str | bytes:
        message = self._bridge.receive(None)
        if message is None:
            raise StopIteration
        return message

    def send(self, message: str | Buffer) -> None:
        """Send a text message (``str``) or a binary one (any bytes-like object).

        When the call returns, the message is in the send queue. While the queue holds more than
        ``write_limit`` bytes, the call waits. If it is interrupted while it waits, nothing is sent.

        Args:
            message: The message.

        Raises:
            TypeError: If ``message`` is neither ``str`` nor bytes-like.
            ValueError: If ``message`` contains a lone surrogate.
            UnsupportedByProtocol: For a binary message in hixie-75 or hixie-76, which have only text. It is
                a TypeError.
            ConnectionClosed: If the connection has ended or is closing.
        """
        if isinstance(message, str):
            if not message.isascii():
                utf8(message, "message")  # a lone surrogate raises here, not in the loop
        else:
            if not isinstance(message, bytes):
                # Copied, because the caller may change the buffer before the loop sends it.
                message = bytes(octets(message, "message must be a str"))
            if not self._bridge.takes_binary and self._bridge.is_open:
                raise UnsupportedByProtocol(NO_BINARY)
        self._bridge.send(message)

    def ping(self, payload: bytes | None = None, timeout: float | None = None) -> float:
        """Send a ping and wait for its pong.

        Keepalive pings (``ping_interval``) are sent without this call.

        Args:
            payload: At most 125 bytes. Default: a payload that is different for each ping.
            timeout: Seconds to wait for the pong. Default: None, no limit.

        Returns:
            The round trip in seconds.

        Raises:
            ConnectionClosed: If the connection ends first.
            TimeoutError: If no pong arrives within ``timeout``.
            ValueError: If the payload is too long, or a ping with the same payload is unanswered.
            UnsupportedByProtocol: In hixie-75 and hixie-76, which have no pings.
        """
        return self._bridge.ping(payload, timeout)

    # -- the end --------------------------------------------------------------

    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> Ending:
        """Do the closing handshake, wait for the end of the connection, and return how it ended.

        May be called repeatedly, from any thread and in any state; it is never an error. Only the first
        closing event counts. Messages sent before the call arrive before the Close. A thread in :meth:`recv`
        gets the same ending. The call takes at most twice ``close_timeout``.

        Args:
            code: The close code. None sends a Close without code and reason. Default: 1000.
            reason: At most 123 bytes of UTF-8. Default: empty.

        Returns:
            The :class:`endwell.Ending` of the connection.

        Raises:
            ValueError: If an application may not send ``code`` (1005, 1006, 1015, unassigned codes), or the
                reason is too long. Nothing is sent, and the connection stays open.
        """
        return self._bridge.close(Cause.APP_CLOSED, Close(code, reason))

    def abort(self) -> None:
        """Cut the connection immediately, without waiting for an answer.

        A Close 1001 is sent if the socket has room for it.
        """
        self._bridge.abort()

    def authorize(self, *, until: datetime | None = None, subject: str | None = None) -> None:
        """Limit the time for which this connection is authorized. Only for connections of a server.

        See :meth:`endwell.WebSocket.authorize`.

        Args:
            until: The time, with a time zone. A time in the past closes the connection now. Default: None, no
                limit.
            subject: The user or account. Default: None, the subject stays as it is.

        Raises:
            TypeError: An argument has the wrong type, or this is the connection of a client.
            ValueError: ``until`` has no time zone, or ``subject`` is empty.
        """
        self._bridge.authorize(until, subject)

    def wait_closed(self, timeout: float | None = None) -> Ending:
        """Wait for the end of the connection and return how it ended.

        Args:
            timeout: Seconds to wait. Default: None, no limit.

        Raises:
            TimeoutError: If the connection is open after ``timeout``.
        """
        return self._bridge.wait_closed(timeout)

    def on_close(self, callback: Callable[[Ending], object]) -> None:
        """Register ``callback(ending)``, which is called exactly once when the connection ends.

        It is called in a separate thread as soon as the end is known, even if no method is called. If the
        connection has ended already, it is called immediately, in this thread. Calls that wait for the end
        return after the callbacks, or after 1 s if a callback takes longer. An exception in a callback is
        logged.

        Args:
            callback: A plain function.

        Raises:
            TypeError: If ``callback`` is a coroutine function, because nothing would await it.
        """
        check_callback(callback)
        self._bridge.on_close(callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            # An interruption: the Close tells the peer that this side is going away.
            self._bridge.close(Cause.CANCELLED, Close(CloseCode.GOING_AWAY))
        else:
            self._bridge.close(Cause.APP_CLOSED, Close(CloseCode.NORMAL_CLOSURE))

    def __del__(self) -> None:
        self._bridge.abandon()


def bridge_of(ws: WebSocket) -> Bridge:
    """What joins ``ws`` to its event loop."""
    return ws._bridge
