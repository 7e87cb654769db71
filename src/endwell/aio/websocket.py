"""The asyncio WebSocket: what handlers and clients hold in their hands."""

# size: all the words of this face; half of it is what they mean.
from __future__ import annotations

import _socket
import asyncio
import logging
import warnings
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, cast
from weakref import ref

from ..codes import CloseCode
from ..ending import Cause, Ending
from ..errors import ConnectionClosed
from ..http import Request, Response
from ..protocol.opening import accept
from ..wire.codec import Buffer, check_message
from . import coroutines
from .alive import Alive
from .awaiting import DONE, Receive, Slot
from .callbacks import call_back, check_callback
from .draining import DrainEvent
from .quiescence import Quiescence, Receiver
from .sending import hasten, mark
from .stream import Stream
from .syscalls import monotonic, thread_ident

__all__ = [
    "WebSocket",
    "answer_later",
    "attach",
    "begin_close",
    "bytes_sent",
    "close_for",
    "dismiss",
    "loop_of",
    "messages_consumed",
    "opened_at",
    "quiesce",
    "socket_of",
]

logger = logging.getLogger("endwell")

#: Seconds after which to look again whether a task still waits on a connection that is not referred to.
RECHECK_INTERVAL = 1.0

hasten()


class WebSocket:
    """One WebSocket connection, open from the moment it is handed out.

    Messages are ``str`` (text) or ``bytes`` (binary). Iteration ends quietly for
    every ending; :attr:`ending` then says how it was.

    A client's connection that is not referred to any more is closed with 1000; if its event loop
    is closed by then, a ResourceWarning names the line that opened it.

    All methods belong to the event loop's thread: :exc:`ConcurrencyError` in another one.
    """

    def __init__(
        self,
        stream: Stream,
        request: Request,
        response: Response | None,
        subprotocol: str | None,
        among: set[WebSocket] | None = None,
        draining: DrainEvent | None = None,
    ) -> None:
        self._request = request
        self._response = response
        self._subprotocol = subprotocol
        self._stream = stream
        self._core = stream.core
        self._over = False
        # Those that are open or closing, of which this is one until its end.
        self._among = among
        self._draining = draining
        self._core.receiver = self._slot = Slot(stream.loop)
        # This and what follows is made when first wanted, for most connections never want it.
        self._recv: Coroutine[Any, Any, str | bytes] | None = None
        self._read: Coroutine[Any, Any, str | bytes | None] | None = None
        self._next: Coroutine[Any, Any, str | bytes] | None = None
        self._sender: asyncio.Future[None] | None = None
        self._turn: asyncio.Lock | None = None
        self._queued = 0
        self._write_limit = stream.core.options.write_limit
        self._watchers: set[asyncio.Future[None]] | None = None
        self._pings: dict[bytes, asyncio.Future[float]] | None = None
        self._callbacks: list[tuple[Callable[[Ending], object], Context]] | None = None
        #: Where a client's connection was opened: file and line.
        self._created_at: tuple[str, int] | None = None
        if among is not None:
            among.add(self)
            stream.changed = self._changed
        else:
            stream.changed = _Link(self).changed

    # -- state ----------------------------------------------------------------

    # Properties, so that a mock of this class has them.
    @property
    def request(self) -> Request:
        """The request of the opening handshake; its ``params`` are those of the route."""
        return self._request

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, or None."""
        return self._subprotocol

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent.

        After a Close of the peer it stays true while messages that came before the Close are
        unread or being handled, for ``answer_timeout`` at most: a loop of ``while ws.is_open`` and
        :meth:`read` handles and answers them all. After any other end it is false at once.
        """
        return self._core.is_open

    @property
    def response(self) -> Response:
        """The answer to it (101)."""
        if self._response is None:
            # A server's. To make it once more takes nothing while nobody asks for it.
            self._response = accept(self.request, self._core.options).response
        return self._response

    @property
    def ending(self) -> Ending | None:
        """How the connection ended; None while it has not."""
        return self._core.ending if self._over else None

    @property
    def closed(self) -> _Closed:
        """``await ws.closed`` waits for the end and is the :class:`Ending`."""
        return _Closed(self)

    @property
    def close_code(self) -> int | None:
        """The code that a browser would report: the peer's, 1005 or 1006; None before the end."""
        if not self._over:
            return None
        received = self._core.received
        if received is None:
            return CloseCode.ABNORMAL_CLOSURE
        return CloseCode.NO_STATUS_RCVD if received.code is None else received.code

    @property
    def close_reason(self) -> str | None:
        """The reason in the peer's Close, or ``""``; None before the end."""
        if not self._over:
            return None
        return "" if self._core.received is None else self._core.received.reason

    @property
    def draining(self) -> DrainEvent:
        """Whether the server is going to stop, and ``await ws.draining.wait()`` for it.

        It is told before the first connection is closed; a handler that returns then
        closes with the code and reason of the drain. Never true for a client.
        """
        if self._draining is None:
            self._draining = DrainEvent()
        return self._draining

    @property
    def latency(self) -> float | None:
        """Seconds of the last ping's round trip; None before the first pong."""
        return self._core.keepalive.latency

    @property
    def smoothed_latency(self) -> float | None:
        """The same, smoothed over some eight pings, as TCP smooths its own round trips."""
        return self._core.keepalive.smoothed

    @property
    def remote_address(self) -> object:
        """The peer's address, as the socket module gives it."""
        return self._stream.remote_address

    @property
    def local_address(self) -> object:
        """Our own address, as the socket module gives it."""
        return self._stream.local_address

    def __repr__(self) -> str:
        state = str(self.ending) if self._over else self._core.state.name.lower()
        return f"<WebSocket {self.request.path!r} {self.remote_address!r} {state}>"

    # -- messages -------------------------------------------------------------

    def recv(self) -> Coroutine[Any, Any, str | bytes]:
        """The next message, to be awaited.

        Messages that came before the end are delivered before the end is told.

        Raises :exc:`ConnectionClosed` when there are no more, and
        :exc:`ConcurrencyError` if another task is receiving. Safe to cancel.
        """
        if self._recv is None:
            self._recv = self._receive(Receive.RAISE)
        return self._recv

    def read(self) -> Coroutine[Any, Any, str | bytes | None]:
        """The next message, or None once the connection is gone, cleanly or not; to be awaited."""
        if self._read is None:
            self._read = self._receive(Receive.NONE)
        return self._read

    def __aiter__(self) -> WebSocket:
        return self

    def __anext__(self) -> Coroutine[Any, Any, str | bytes]:
        if self._next is None:
            self._next = self._receive(Receive.STOP)
        return self._next

    def _receive(self, at_end: int) -> Coroutine[Any, Any, Any]:
        # It has a coroutine's methods and is registered as one, which mypy does not see.
        return cast("Coroutine[Any, Any, Any]", Receive(self._stream, self._slot, at_end))

    def send(self, message: str | Buffer) -> Coroutine[Any, Any, None]:
        """Send a text message (``str``) or a binary one (bytes-like: array and mmap, too); to be awaited.

        The message is in the send queue when this returns; if that holds more than
        ``write_limit`` bytes, awaiting it waits for room first. Cancelled while
        waiting, it sends nothing.

        To be awaited always: where it has to wait and is not awaited, the message is not sent, and
        Python warns that "coroutine 'WebSocket.send' was never awaited".

        Raises TypeError for anything that is no message, :exc:`UnsupportedByProtocol` (which is one)
        for bytes in an old protocol that has only text, and when awaited
        :exc:`ConnectionClosed` after the end.
        """
        if self._slot.thread != thread_ident():
            self._slot.guard("send")
        core = self._core
        # Not self._turn.locked(): between two turns of the lock nobody has it, and whoever
        # sends on and on would overtake those who wait.
        if self._queued or core.outbox.size > self._write_limit:
            return coroutines.send(self, message)
        if not core.send(message, self._stream.now()):
            check_message(message)
            return coroutines.refuse(self)
        return coroutines.yield_once() if self._stream.wrote() else DONE

    def ping(self, payload: bytes | None = None) -> Coroutine[Any, Any, float]:
        """Send a ping, wait for its pong, return the round trip in seconds; to be awaited.

        ``payload`` is at most 125 bytes; by default a fresh one is made.

        Raises :exc:`ConnectionClosed` if the connection ends first, and ValueError for
        a payload that is too long or still unanswered. Keepalive pings go by themselves.
        """
        self._guard("ping")
        return coroutines.ping(self, payload)

    # -- the end --------------------------------------------------------------

    def close(
        self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = ""
    ) -> Coroutine[Any, Any, Ending]:
        """Do the closing handshake, wait for the end, and return how it was; to be awaited.

        May be called any number of times, from any task, whatever the state; only the
        first closing event counts, and it is never an error. Messages sent before
        it arrive before it. Takes ``close_timeout`` twice at the most. With None for the code
        the Close has none, nor a reason.

        Raises ValueError for a code that an application may not send (1005, 1006,
        1015, unassigned ones) or a reason over 123 bytes of UTF-8; then nothing
        was sent and the connection goes on.
        """
        self._guard("close")
        return coroutines.close(self, code, reason)

    def abort(self) -> None:
        """Cut the connection now: a Close 1001 if it fits, no waiting for an answer."""
        self._guard("abort")
        self._core.close(CloseCode.GOING_AWAY, "", monotonic())
        self._stream.abort()

    def wait_closed(self) -> Coroutine[Any, Any, Ending]:
        """Wait for the end, and return how it was; to be awaited."""
        self._guard("wait_closed")
        return coroutines.wait_closed(self)

    def on_close(self, callback: Callable[[Ending], object]) -> None:
        """Have ``callback(ending)`` called exactly once, at the end, on every path.

        It is called from the event loop as soon as the end is known, also while the
        handler sleeps; at once if the end is past. An exception in it is logged. A Close of the
        peer that waits for the handler is not the end yet (``answer_timeout``), nor are both
        Closes before TCP has ended (``linger_timeout``).

        Raises TypeError for a coroutine function: there is nobody to await it.
        """
        self._guard("on_close")
        check_callback(callback)
        if self._callbacks is None:
            self._callbacks = []
        # The context is that of the registration, as a Future's callbacks have it.
        self._callbacks.append((callback, copy_context()))
        if self._over:
            self._tell()

    def alive(self) -> Alive:
        """``async with ws.alive():`` cancels its body when the connection ends.

        At its edge the cancellation becomes :exc:`ConnectionClosed`. For handlers
        that wait on something else than the connection.
        """
        return Alive(self)

    def _guard(self, name: str) -> None:
        """Raise :exc:`ConcurrencyError` in a thread that is not the event loop's."""
        if self._slot.thread != thread_ident():
            self._slot.guard(name)

    def __del__(self) -> None:
        if self._over or self._among is not None:
            return
        try:
            # The garbage collector may run in any thread, and within any call.
            self._stream.loop.call_soon_threadsafe(self._abandon)
        except RuntimeError:  # the loop is closed
            file, line = self._created_at or ("endwell", 1)
            warnings.warn_explicit(
                f"{self!r} was not closed before its event loop; opened at {file}:{line}",
                ResourceWarning,
                file,
                line,
            )

    def _abandon(self) -> None:
        """Close, because the application does not refer to this any more."""
        if self._over:
            return
        # Until the end, of which callbacks are told.
        self._stream.changed = self._changed
        self._changed(False)
        if self._slot.busy:
            # As in `await (await connect(url)).recv()`.
            self._stream.loop.call_later(RECHECK_INTERVAL, self._abandon)
        else:
            begin_close(self, Cause.APP_CLOSED, CloseCode.NORMAL_CLOSURE)

    def _changed(self, inline: bool) -> None:
        self._tell_all(inline)

    def _tell_all(self, inline: bool) -> None:
        """Wake whoever waits for what has come to be; a receiver at once if ``inline``."""
        core = self._core
        if core.answering:
            self._answer_later()
        if core.keepalive.answered:
            for payload, latency in core.keepalive.answered:
                waiter = None if self._pings is None else self._pings.get(payload)
                if waiter is not None and not waiter.done():
                    waiter.set_result(latency)
            core.keepalive.answered = None
        if core.inbox.messages and self._slot.is_waiting():
            self._slot.wake(inline)
        if self._sender is not None or (core.partial_size and self._slot.is_waiting()):
            core.want_message()
        if self._sender is not None and (not core.is_open or core.outbox.size <= self._write_limit):
            _wake(self._sender)
        if core.over and not self._over:
            self._ended(inline)

    def _answer_later(self) -> None:
        """Have the peer's Close answered as soon as the application comes back for the next message."""
        core = self._core
        receiver = cast(Receiver, core.receiver)
        if receiver.quiescence is None:
            receiver.quiescence = quiescence = Quiescence(self._stream, receiver, 0.0, self._answer)
            # A thread may have come back before it could see that it is waited for.
            if not core.inbox.messages and receiver.is_waiting():
                quiescence()

    def _answer(self) -> None:
        self._core.handled(self._stream.now())
        self._stream.settle()

    def _ended(self, inline: bool) -> None:
        # Whoever asks makes the ending: most often nobody does.
        self._over = self._slot.over = True
        self._core.receiver = self._slot.quiescence = None
        # No circle is left, so that all of it goes as soon as nobody holds it.
        self._stream.changed = None
        if not self._core.ended:
            self._stream.linger()
        if self._among is not None:
            self._among.discard(self)
        for watcher in self._watchers or ():
            _wake(watcher)
        for waiter in self._pings.values() if self._pings else ():
            if not waiter.done() and self.ending is not None:
                waiter.set_exception(ConnectionClosed.of(self.ending))
        self._tell()
        # Last, for it may go on at once, and everybody else is told before.
        self._slot.wake(inline)

    def _tell(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        for callback, context in callbacks or ():
            assert self._core.ending is not None
            call_back(callback, context, self._core.ending)


# What the other layers do with a connection and applications do not: functions, so that WebSocket has
# only what a page explains.


def begin_close(ws: WebSocket, cause: Cause, code: int, reason: str = "") -> None:
    """Send the Close and return at once; ``cause`` is that of the ending. No effect after the end."""
    ws._guard("begin_close")
    if not ws._over:
        ws._core.close(code, reason, monotonic(), cause)
        ws._stream.settle()


def close_for(ws: WebSocket, cause: Cause, code: int, reason: str = "") -> Coroutine[Any, Any, Ending]:
    """Like :meth:`WebSocket.close`, with the cause of the ending; to be awaited."""
    begin_close(ws, cause, code, reason)
    return coroutines.wait_closed(ws)


def dismiss(ws: WebSocket, code: int, reason: str) -> None:
    """Begin to close for SERVER_DRAINED, and deliver no more messages to a handler that answers them.

    A message that crosses the Close could be handled but not answered, and the peer would ask
    again elsewhere. A handler that has consumed messages and has never sent one owes no answer, so
    it still receives what comes. For a first message that crosses the Close it is unknown
    whether it is a question, so it is dropped, too.
    """
    ws._core.stop_delivery = ws._core.has_sent() or not ws._core.messages_consumed()
    begin_close(ws, Cause.SERVER_DRAINED, code, reason)


def quiesce(ws: WebSocket, callback: Callable[[], object], quiet: float) -> Quiescence:
    """Call ``callback()`` once, when the application waits for a message and none is there or on the way.

    If the application waits already, that is ``quiet`` seconds from now: a peer that sends the next
    question as soon as it has an answer has that question on the way. If no message has ever come,
    the callback is called at once. A Close that the callback begins leaves together with the answer to
    the last message. The callback is not called if the connection closes otherwise. The
    :class:`Quiescence` that is returned can stop the reading from the peer.
    """
    ws._slot.quiescence = quiescence = Quiescence(ws._stream, ws._slot, quiet, callback)
    quiescence.begin()
    return quiescence


def messages_consumed(ws: WebSocket) -> int:
    """The number of messages that the application has received."""
    return ws._core.messages_consumed()


def bytes_sent(ws: WebSocket) -> int:
    """The number of bytes that the kernel has accepted."""
    return ws._core.outbox.bytes_sent


def opened_at(ws: WebSocket) -> float:
    """When the connection opened, in seconds of the monotonic clock."""
    return ws._core.opened


def loop_of(ws: WebSocket) -> asyncio.AbstractEventLoop:
    """The event loop that the connection belongs to."""
    loop: asyncio.AbstractEventLoop = ws._stream.loop
    return loop


def attach(
    ws: WebSocket, receiver: Receiver, changed: Callable[[bool], None]
) -> tuple[Stream, Callable[[bool], None]]:
    """Deliver the messages of ``ws`` to ``receiver`` from now on; ``changed`` is called first after each change.

    Returns the stream, and what ``changed`` has to call afterwards.
    """
    ws._stream.changed = changed
    ws._core.receiver = receiver
    return ws._stream, ws._changed


def answer_later(ws: WebSocket) -> None:
    """Answer the peer's Close when the application comes back for the next message."""
    ws._answer_later()


def socket_of(ws: WebSocket) -> _socket.socket | None:
    """The socket; None after the end of TCP."""
    return ws._stream.sock


class _Link:
    """From a client's stream to its WebSocket, which only the application keeps alive."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ref(ws)

    def changed(self, inline: bool) -> None:
        """See ``WebSocket._changed``."""
        ws = self._ws()
        if ws is not None:
            ws._tell_all(inline)


class _Closed:
    """The end, to be awaited any number of times; cancelling one wait harms no other."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws

    def __await__(self) -> Generator[object, None, Ending]:
        ws = self._ws
        ws._guard("closed")
        while (ending := ws.ending) is None:
            watcher: asyncio.Future[None] = ws._stream.loop.create_future()
            if ws._watchers is None:
                ws._watchers = set()
            ws._watchers.add(watcher)
            try:
                yield from watcher
            finally:
                ws._watchers.discard(watcher)
        return ending


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


# They return coroutines, or what does for one: mocks of this class, and who else asks, are to know.
for _function in (
    WebSocket.recv,
    WebSocket.read,
    WebSocket.send,
    WebSocket.ping,
    WebSocket.close,
    WebSocket.wait_closed,
):
    mark(_function)
