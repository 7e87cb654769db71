"""The blocking WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from ..aio.callbacks import check_callback
from ..codes import CloseCode
from ..ending import Cause, Ending
from ..errors import ConnectionClosed, UnsupportedByProtocol
from ..http import Request, Response
from ..wire.codec import NO_BINARY, Buffer, octets
from ..wire.frames import close_payload
from .bridge import Bridge
from .draining import ThreadDrainEvent

__all__ = ["WebSocket", "bridge_of"]


class WebSocket:
    """One WebSocket connection, open from the moment it is handed out; its calls block.

    Everything is as with the asyncio :class:`~endwell.WebSocket`, without ``await``, and may
    be called from any thread, from several at once: each message goes to one of those who
    receive, and those who send take turns. The connection is kept by an event loop in
    another thread, so pings are answered, a Close is echoed and a drop is noticed also
    while no call is made. Ctrl-C interrupts every call in the main thread.

    ``with ws:`` closes at its end, with 1000. A connection that nobody holds any more is
    closed too.

    Calls that would have to wait raise :exc:`ConcurrencyError` in the event loop's own
    thread, and all do in a forked child.
    """

    __slots__ = ("__weakref__", "_bridge", "_draining", "_ws")

    def __init__(self, bridge: Bridge, draining: ThreadDrainEvent | None = None) -> None:
        self._bridge = bridge
        self._ws = bridge.ws
        self._draining = draining

    # -- state ----------------------------------------------------------------

    @property
    def request(self) -> Request:
        """The request of the opening handshake; its ``params`` are those of the route."""
        return self._ws.request

    @property
    def response(self) -> Response:
        """The answer to it (101)."""
        return self._ws.response

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, or None."""
        return self._ws.subprotocol

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent.

        After a Close of the peer it stays true while messages that came before the Close are
        unread or being handled, for ``answer_timeout`` at most: a loop of ``while ws.is_open`` and
        :meth:`read` handles and answers them all. After any other end it is false at once.
        """
        return self._bridge.is_open

    @property
    def ending(self) -> Ending | None:
        """How the connection ended; None while it has not."""
        return self._bridge.ending

    @property
    def close_code(self) -> int | None:
        """The code that a browser would report: the peer's, 1005 or 1006; None before the end."""
        return self._ws.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason in the peer's Close, or ``""``; None before the end."""
        return self._ws.close_reason

    @property
    def draining(self) -> ThreadDrainEvent:
        """Whether the server is going to stop; ``ws.draining.wait(timeout)`` waits for it, as a threading.Event does.

        It is told before the first connection is closed; a handler that returns then
        closes with the code and reason of the drain. Never true for a client.
        """
        if self._draining is None:
            self._draining = ThreadDrainEvent()
        return self._draining

    @property
    def latency(self) -> float | None:
        """Seconds of the last ping's round trip; None before the first pong."""
        return self._ws.latency

    @property
    def smoothed_latency(self) -> float | None:
        """The same, smoothed over some eight pings, as TCP smooths its own round trips."""
        return self._ws.smoothed_latency

    @property
    def remote_address(self) -> object:
        """The peer's address, as the socket module gives it."""
        return self._ws.remote_address

    @property
    def local_address(self) -> object:
        """Our own address, as the socket module gives it."""
        return self._ws.local_address

    def __repr__(self) -> str:
        return repr(self._ws)

    # -- messages -------------------------------------------------------------

    def recv(self, timeout: float | None = None) -> str | bytes:
        """The next message.

        Messages that came before the end are delivered before the end is told.

        Raises :exc:`ConnectionClosed` when there are no more, and TimeoutError if none
        comes within ``timeout`` seconds (0 does not wait, None waits for ever); then nothing
        is lost.
        """
        message = self._bridge.receive(timeout)
        if message is None:
            raise ConnectionClosed.of(self._bridge.wait_closed(None))
        return message

    def read(self, timeout: float | None = None) -> str | bytes | None:
        """The next message, or None once the connection is gone, cleanly or not; ``timeout`` as in :meth:`recv`."""
        return self._bridge.receive(timeout)

    def __iter__(self) -> WebSocket:
        return self

    def __next__(self) -> str | bytes:
        message = self._bridge.receive(None)
        if message is None:
            raise StopIteration
        return message

    def send(self, message: str | Buffer) -> None:
        """Send a text message (``str``) or a binary one (bytes-like: array and mmap, too).

        The message is in the send queue when this returns; if that holds more than
        ``write_limit`` bytes, it waits for room first. Interrupted while waiting, it
        sends nothing.

        Raises TypeError for anything that is no message, :exc:`UnsupportedByProtocol` (which is one)
        for bytes in an old protocol that has only text, and :exc:`ConnectionClosed` after the end.
        """
        if isinstance(message, str):
            if not message.isascii():
                message.encode()  # a lone surrogate raises here, not in the loop
        else:
            if not isinstance(message, bytes):
                # Copied, because it may change before it leaves.
                message = bytes(octets(message, "message must be a str"))
            if not self._bridge.takes_binary and self._bridge.is_open:
                raise UnsupportedByProtocol(NO_BINARY)
        self._bridge.send(message)

    def ping(self, payload: bytes | None = None, timeout: float | None = None) -> float:
        """Send a ping, wait for its pong, return the round trip in seconds.

        ``payload`` is at most 125 bytes; by default a fresh one is made.

        Raises :exc:`ConnectionClosed` if the connection ends first, TimeoutError after
        ``timeout`` seconds, and ValueError for a payload that is too long or still
        unanswered. Keepalive pings go by themselves.
        """
        return self._bridge.ping(payload, timeout)

    # -- the end --------------------------------------------------------------

    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> Ending:
        """Do the closing handshake, wait for the end, and return how it was.

        May be called any number of times, from any thread, whatever the state; only the
        first closing event counts, and it is never an error. Messages sent before
        it arrive before it. A thread that is in :meth:`recv` sees the same end. Takes
        ``close_timeout`` twice at the most. With None for the code the Close has none, nor a reason.

        Raises ValueError for a code that an application may not send (1005, 1006,
        1015, unassigned ones) or a reason over 123 bytes of UTF-8; then nothing
        was sent and the connection goes on.
        """
        close_payload(code, reason)
        return self._bridge.close(Cause.APP_CLOSED, code, reason)

    def abort(self) -> None:
        """Cut the connection now: a Close 1001 if it fits, no waiting for an answer."""
        self._bridge.abort()

    def wait_closed(self, timeout: float | None = None) -> Ending:
        """Wait for the end, and return how it was. Raises TimeoutError after ``timeout`` seconds."""
        return self._bridge.wait_closed(timeout)

    def on_close(self, callback: Callable[[Ending], object]) -> None:
        """Have ``callback(ending)`` called exactly once, at the end, on every path.

        It is called as soon as the end is known, also while no call is made, in a thread
        kept for such callbacks; at once, in this thread, if the end is past. Calls that
        wait for the end return after it, or after a second if it takes longer. An
        exception in it is logged.

        Raises TypeError for a coroutine function: there is nobody to await it.
        """
        check_callback(callback)
        self._bridge.on_close(callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            # Interrupted: the peer is told so.
            self._bridge.close(Cause.CANCELLED, CloseCode.GOING_AWAY, "")
        else:
            self._bridge.close(Cause.APP_CLOSED, CloseCode.NORMAL_CLOSURE, "")

    def __del__(self) -> None:
        self._bridge.abandon()


def bridge_of(ws: WebSocket) -> Bridge:
    """What joins ``ws`` to its event loop."""
    return ws._bridge
