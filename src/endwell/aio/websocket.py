"""The asyncio WebSocket."""

# size: the whole asyncio API; more than half of it is docstrings.
from __future__ import annotations

import _socket
import asyncio
import logging
import warnings
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from datetime import datetime
from typing import Any, cast
from weakref import ref

from ..codes import CloseCode
from ..ending import Cause, Close, Ending
from ..errors import ConnectionClosed
from ..http import Request, Response, TLSInfo, set_link
from ..http.accept import check_subject
from ..protocol.opening import accept
from ..protocol.pause import Pause
from ..protocol.receiver import Receiver
from ..wire.codec import Buffer, check_message
from . import coroutines
from .alive import Alive
from .authorization import deadline_of
from .awaiting import DONE, Receive, Slot
from .callbacks import Counter, Observer, call_back, check_callback
from .driver import Driver
from .ending_log import is_enabled, log_ending
from .flag import Flag
from .quiescence import Quiescence
from .recording import deliver
from .sending import install_am_send, mark_coroutine_function
from .syscalls import monotonic, thread_ident

__all__ = [
    "WebSocket",
    "answers_close",
    "begin_close",
    "bytes_sent",
    "close_for",
    "count",
    "deliver_to",
    "end_delivery",
    "last_message_at",
    "loop_of",
    "messages_consumed",
    "observe",
    "opened_at",
    "quiesce",
    "socket_of",
    "stop_delivery",
]

logger = logging.getLogger("endwell")

#: Seconds between checks whether a task still waits on a connection that is otherwise unreferenced.
RECHECK_INTERVAL = 1.0

install_am_send()


class WebSocket:
    """One open WebSocket connection.

    ``await connect(...)`` returns it, and coroutine handlers of a :class:`Server` get it. Messages are
    ``str`` (text) or ``bytes`` (binary). ``async for message in ws`` receives them and stops without an
    exception when the connection ends, however it ends; :attr:`ending` says how.

    A client's connection without references is closed with 1000. If its event loop is closed by then, a
    ResourceWarning names the line that opened the connection.

    All methods must be called in the thread of the event loop; otherwise they raise
    :exc:`ConcurrencyError`. Use :mod:`endwell.sync` for threads.

    Example:
        ```python
        import asyncio
        import endwell

        server = endwell.Server()

        @server.websocket("/")
        async def echo(ws):
            async for message in ws:
                await ws.send(message)

        async def main():
            async with server.serving(port=0):
                async with endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    await ws.send("hello")
                    print(await ws.recv())
                print(ws.ending)

        asyncio.run(main())
        ```
    """

    def __init__(
        self,
        stream: Driver,
        request: Request,
        response: Response | None,
        subprotocol: str | None,
        among: set[WebSocket] | None = None,
        stopping: Flag | None = None,
    ) -> None:
        self._request = request
        self._response = response
        self._subprotocol = subprotocol
        self._stream = stream
        self._core = stream.core
        self._over = False
        # The server's set of connections that are open or closing; None for a client.
        self._open_set = among
        self._stopping = stopping
        self._slot = Slot(stream.loop, stream.core.inbox)
        stream.core.deliver_to(self._slot)
        # The following attributes are created on first use, because most connections use few of them.
        self._recv: Coroutine[Any, Any, str | bytes] | None = None
        self._read: Coroutine[Any, Any, str | bytes | None] | None = None
        self._next: Coroutine[Any, Any, str | bytes] | None = None
        self._sender: asyncio.Future[None] | None = None
        self._send_lock: asyncio.Lock | None = None
        self._queued = 0
        self._write_limit = stream.core.options.write_limit
        self._subject: str | None = None
        #: The key under which the server's sessions have this connection.
        self._key: Any = None
        self._watchers: set[asyncio.Future[None]] | None = None
        self._pings: dict[bytes, asyncio.Future[float]] | None = None
        self._callbacks: list[tuple[Callable[[Ending], object], Context]] | None = None
        #: Told of the end before the callbacks. Many connections may have the same tuple.
        self._observers: tuple[Observer, ...] = ()
        #: Counts the connections of the route.
        self._counter: Counter | None = None
        #: For a client: the file and the line that opened the connection.
        self._created_at: tuple[str, int] | None = None
        if among is not None:
            among.add(self)
            stream.changed = self._changed
        else:
            stream.changed = _WeakLink(self).changed
            set_link(request, stream.tls_object())

    # -- state ----------------------------------------------------------------

    # Properties, so that a mock of this class has them.
    @property
    def request(self) -> Request:
        """The request of the opening handshake. On a server its ``params`` are those of the route."""
        return self._request

    @property
    def subprotocol(self) -> str | None:
        """The negotiated subprotocol; None if there is none."""
        return self._subprotocol

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent.

        After a Close of the peer it stays true while messages that arrived before the Close are unread or
        being handled, for at most ``answer_timeout``: a ``while ws.is_open`` loop with :meth:`read` handles
        and answers all of them. After any other end it is false immediately.
        """
        return self._core.is_open

    @property
    def response(self) -> Response:
        """The 101 response of the opening handshake."""
        if self._response is None:
            # A server does not keep its 101. It is computed again on first access.
            self._response = accept(self.request, self._core.options).response
        return self._response

    @property
    def ending(self) -> Ending | None:
        """How the connection ended; None while it is open."""
        return self._core.ending if self._over else None

    @property
    def closed(self) -> _Closed:
        """An awaitable that waits for the end: ``ending = await ws.closed``.

        Several tasks may await it; cancelling one of them does not affect the others.
        """
        return _Closed(self)

    @property
    def close_code(self) -> int | None:
        """The close code that a browser would report; None while the connection is open.

        It is the code of the peer's Close, 1005 if that Close had no code, or 1006 if no Close came.
        """
        if not self._over:
            return None
        received = self._core.received
        if received is None:
            return CloseCode.ABNORMAL_CLOSURE
        return CloseCode.NO_STATUS_RCVD if received.code is None else received.code

    @property
    def close_reason(self) -> str | None:
        """The reason in the peer's Close, ``""`` if there is none; None while the connection is open."""
        if not self._over:
            return None
        return "" if self._core.received is None else self._core.received.reason

    @property
    def draining(self) -> Flag:
        """Set when the server begins to stop, before it closes the first connection.

        It works as a truth value and as an asyncio.Event: ``await ws.draining.wait()``. A handler that
        returns while it is set closes with the code and the reason of the stop. It is never set for a
        client.
        """
        if self._stopping is None:
            self._stopping = Flag()
        return self._stopping

    @property
    def latency(self) -> float | None:
        """The round trip of the last ping in seconds; None before the first pong."""
        return self._core.latency

    @property
    def smoothed_latency(self) -> float | None:
        """The moving average of :attr:`latency` in seconds; None before the first pong.

        Each new round trip has a weight of 1/8, as in TCP (RFC 6298 §2.3).
        """
        latency = self._core.smoothed_latency
        return None if latency < 0.0 else latency

    @property
    def messages_in(self) -> int:
        """Number of complete messages received, including those that are not read yet.

        Like ``messages_out``, ``bytes_in``, ``bytes_out`` and ``dropped_messages``, it counts from the opening
        on. After the end, these five are those of the :class:`Ending`.
        """
        return self._core.messages_in

    @property
    def messages_out(self) -> int:
        """Number of messages accepted by :meth:`send`."""
        return self._core.messages_out

    @property
    def bytes_in(self) -> int:
        """Number of bytes received after the opening handshake."""
        return self._core.bytes_in

    @property
    def bytes_out(self) -> int:
        """Number of bytes sent after the opening handshake; those that wait in the send queue do not count."""
        ending = self.ending
        return self._core.bytes_out if ending is None else ending.bytes_out

    @property
    def dropped_messages(self) -> int:
        """Number of messages that were dropped.

        Those are messages that arrived after the local Close while the queue was full, and those above a
        :class:`endwell.Limit`.
        """
        return self._core.dropped_messages

    @property
    def remote_address(self) -> object:
        """The peer's address, in the format of the socket module: ``(host, port, ...)``; ``""`` on a Unix socket.

        Behind a proxy of the option ``proxy_headers`` or ``proxy_protocol``, it is the client's address.
        """
        address = self._request.remote_address
        return self._stream.remote_address if address is None else address

    @property
    def tls(self) -> TLSInfo | None:
        """The TLS session, with the certificate of the peer; None without TLS.

        It is that of the connection to this process, even behind a proxy.
        """
        return self._request.tls

    @property
    def local_address(self) -> object:
        """The local address, in the format of the socket module."""
        return self._stream.local_address

    @property
    def subject(self) -> str | None:
        """The user or account that :meth:`authorize` has named; None before."""
        return self._subject

    def __repr__(self) -> str:
        state = str(self.ending) if self._over else self._core.state.name.lower()
        return f"<WebSocket {self.request.path!r} {self.remote_address!r} {state}>"

    # -- messages -------------------------------------------------------------

    def recv(self) -> Coroutine[Any, Any, str | bytes]:
        """Receive the next message: ``str`` for text, ``bytes`` for binary. Await the result.

        Messages that arrived before the end of the connection are returned first. If the task is
        cancelled, no message is lost.

        Raises:
            ConnectionClosed: If the connection has ended and there are no more messages.
            ConcurrencyError: If another task is receiving.
        """
        if self._recv is None:
            self._recv = self._receive(Receive.RAISE)
        return self._recv

    def read(self) -> Coroutine[Any, Any, str | bytes | None]:
        """Receive the next message, or None after the end of the connection. Await the result.

        Messages that arrived before the end of the connection are returned first. If the task is
        cancelled, no message is lost.

        Raises:
            ConcurrencyError: If another task is receiving.
        """
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
        """Send a text message (``str``) or a binary one (any bytes-like object). Await the result.

        When the ``await`` returns, the message is in the send queue. While the queue holds more than
        ``write_limit`` bytes, the ``await`` waits; if the task is cancelled then, nothing is sent.

        Always await it: if the queue is full, a call without ``await`` does not send the message, and
        Python warns that "coroutine 'WebSocket.send' was never awaited".

        Args:
            message: The message.

        Raises:
            TypeError: If ``message`` is neither ``str`` nor bytes-like.
            ValueError: If ``message`` contains a lone surrogate.
            UnsupportedByProtocol: For a binary message in hixie-75 or hixie-76, which have only text. It is
                a TypeError.
            ConnectionClosed: When awaited, if the connection has ended or is closing.
        """
        if self._slot.thread != thread_ident():
            self._slot.guard("send")
        core = self._core
        # Not self._send_lock.locked(): the lock is free between two holders, and a task that sends
        # continuously would overtake the waiting tasks.
        if self._queued or core.outbox.size > self._write_limit:
            return coroutines.send(self, message)
        if not core.send(message, self._stream.now()):
            check_message(message)
            return coroutines.refuse(self)
        return coroutines.yield_once() if self._stream.wrote() else DONE

    def ping(self, payload: bytes | None = None) -> Coroutine[Any, Any, float]:
        """Send a ping and wait for its pong. Await the result.

        Keepalive pings (``ping_interval``) are sent without this call.

        Args:
            payload: At most 125 bytes. Default: a payload that is different for each ping.

        Returns:
            The round trip in seconds.

        Raises:
            ConnectionClosed: If the connection ends first.
            ValueError: If the payload is too long, or a ping with the same payload is unanswered.
            UnsupportedByProtocol: In hixie-75 and hixie-76, which have no pings.
        """
        self._guard("ping")
        return coroutines.ping(self, payload)

    # -- the end --------------------------------------------------------------

    def close(
        self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = ""
    ) -> Coroutine[Any, Any, Ending]:
        """Do the closing handshake, wait for the end of the connection, and return how it ended.

        May be called repeatedly, from any task and in any state; it is never an error. Only the first closing
        event counts. Messages sent before the call arrive before the Close. Awaiting it takes at most twice
        ``close_timeout``.

        Args:
            code: The close code. None sends a Close without code and reason. Default: 1000.
            reason: At most 123 bytes of UTF-8. Default: empty.

        Returns:
            The :class:`Ending` of the connection.

        Raises:
            ValueError: If an application may not send ``code`` (1005, 1006, 1015, unassigned codes), or the
                reason is too long. Nothing is sent, and the connection stays open.
        """
        self._guard("close")
        return coroutines.close(self, code, reason)

    def abort(self) -> None:
        """Cut the connection immediately, without waiting for an answer.

        A Close 1001 is sent if the socket has room for it.
        """
        self._guard("abort")
        self._core.close(Close(CloseCode.GOING_AWAY), monotonic())
        self._stream.abort()

    def authorize(self, *, until: datetime | None = None, subject: str | None = None) -> None:
        """Limit the time for which this connection is authorized. Only for connections of a server.

        At that time the connection is closed with 3000 (``CloseCode.UNAUTHORIZED``) and the advice to fetch a
        new token and return. Its Ending has the cause AUTH_EXPIRED. Messages that arrive after that time are
        dropped; those that arrived before can still be received. A further call moves the time, such as after
        a message with a new token. :meth:`Server.revoke` closes all connections of a subject.

        Precedent: the expiry of a connection in Centrifugo, and the field ``exp`` of RFC 7519 §4.1.4.

        Args:
            until: The time, with a time zone. If it is in the past, nothing more is sent. Default: None, no limit.
            subject: The user or account, such as the field ``sub`` of a token. Name it before a check of it that
                takes time: a revocation before this call has no effect. Default: None, it stays as it is.

        Raises:
            TypeError: An argument has the wrong type, or this is the connection of a client.
            ValueError: ``until`` has no time zone, or ``subject`` is empty.

        Example:
            ```python
            import asyncio
            from datetime import UTC, datetime, timedelta
            from endwell import Server, connect

            server = Server()

            @server.websocket("/")
            async def handler(ws):
                ws.authorize(until=datetime.now(UTC) + timedelta(seconds=0.1), subject="ada")
                await ws.wait_closed()

            async def main():
                async with server.serving(port=0), connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    print(await ws.wait_closed())

            asyncio.run(main())
            ```
        """
        self._guard("authorize")
        if self._open_set is None:
            raise TypeError("authorize() is for connections of a server; this one is a client's")
        check_subject(subject)
        deadline = deadline_of(until)
        self._core.authorize(deadline)
        if subject is not None:
            self._subject = subject
        if deadline <= (now := monotonic()):
            self._core.tick(now)  # so that nothing is sent or delivered any more
        self._stream.settle()

    def wait_closed(self) -> Coroutine[Any, Any, Ending]:
        """Wait for the end of the connection and return its :class:`Ending`. Await the result."""
        self._guard("wait_closed")
        return coroutines.wait_closed(self)

    def on_close(self, callback: Callable[[Ending], object]) -> None:
        """Register ``callback(ending)``, which is called exactly once when the connection ends.

        The event loop calls it as soon as the end is known, even while the handler waits for something else.
        If the connection has ended already, it is called immediately. An exception in it is logged.

        Two states do not count as the end yet: the peer's Close is not answered yet because the handler
        is busy (``answer_timeout``), or both Closes are exchanged and TCP is still open (``linger_timeout``).

        Args:
            callback: A plain function.

        Raises:
            TypeError: If ``callback`` is a coroutine function, because nothing would await it.
        """
        self._guard("on_close")
        check_callback(callback)
        if self._callbacks is None:
            self._callbacks = []
        # The callback runs in the context of the registration, like a Future's callbacks.
        self._callbacks.append((callback, copy_context()))
        if self._over:
            self._call_callbacks()

    def alive(self) -> Alive:
        """Cancel a block of code when the connection ends: ``async with ws.alive():``.

        The cancellation leaves the block as :exc:`ConnectionClosed`. Use it in handlers that wait for
        something other than the connection.

        Raises:
            ConnectionClosed: If the connection has ended, or ends while the block runs.

        Example:
            ```python
            import asyncio
            import endwell

            server = endwell.Server()

            @server.websocket("/")
            async def ticks(ws):
                async with ws.alive():
                    while True:
                        await ws.send("tick")
                        await asyncio.sleep(60)

            async def main():
                async with server.serving(port=0):
                    async with endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
                        print(await ws.recv())

            asyncio.run(main())
            ```
        """
        return Alive(self)

    def _guard(self, name: str) -> None:
        """Raise :exc:`ConcurrencyError` in a thread that is not the event loop's."""
        if self._slot.thread != thread_ident():
            self._slot.guard(name)

    def __del__(self) -> None:
        if self._over or self._open_set is not None:
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
        """Close the connection, because the application has dropped its last reference."""
        if self._over:
            return
        # Keeps this object until the end, so that its callbacks are called.
        self._stream.changed = self._changed
        self._changed(False)
        if self._slot.busy:
            # A task waits in `await (await connect(url)).recv()`.
            self._stream.loop.call_later(RECHECK_INTERVAL, self._abandon)
        else:
            begin_close(self, Cause.APP_CLOSED, CloseCode.NORMAL_CLOSURE)

    def _changed(self, inline: bool) -> None:
        self._wake_waiters(inline)

    def _wake_waiters(self, inline: bool) -> None:
        """Wake the tasks whose condition may be true now; resume the receiver immediately if ``inline``."""
        core = self._core
        if core.answering:
            self._answer_later()
        if core.answered:
            for payload, latency in core.answered:
                if self._counter is not None:
                    self._counter.answered(latency)
                waiter = None if self._pings is None else self._pings.get(payload)
                if waiter is not None and not waiter.done():
                    waiter.set_result(latency)
            core.answered = None
        if core.receiver is not None:
            core.receiver.deliver(inline)
        if self._sender is not None or (core.partial_size and self._slot.is_waiting()):
            core.want_message()
        if self._sender is not None and (not core.is_open or core.outbox.size <= self._write_limit):
            _wake(self._sender)
        if core.over and not self._over:
            self._ended(inline)

    def _answer_later(self) -> None:
        """Answer the peer's Close as soon as the application comes back for the next message."""
        core, receiver = self._core, self._core.receiver
        if receiver is not None and receiver.quiescence is None:
            receiver.quiescence = quiescence = Quiescence(self._stream, receiver, 0.0, self._answer)
            # A thread may have come back before it could see the new quiescence.
            if not core.inbox and receiver.is_waiting():
                quiescence()

    def _answer(self) -> None:
        self._core.handled(self._stream.now())
        self._stream.settle()

    def _ended(self, inline: bool) -> None:
        # The Ending object is created on first access, because most connections never need it.
        self._over = self._slot.over = True
        self._core.receiver = self._slot.quiescence = None
        # Break the reference cycle, so that the objects are freed with their last reference.
        self._stream.changed = None
        if not self._core.ended:
            self._stream.linger()
        if self._open_set is not None:
            self._open_set.discard(self)
        for watcher in self._watchers or ():
            _wake(watcher)
        for waiter in self._pings.values() if self._pings else ():
            if not waiter.done() and self.ending is not None:
                waiter.set_exception(ConnectionClosed.of(self.ending))
        if self._counter is not None:
            self._counter.ended(self._core)
        if is_enabled():
            assert self._core.ending is not None
            log_ending(self, self._core.ending)
        recorder = self._core.options.recorder
        if recorder is not False and recorder is not True:
            assert self._core.ending is not None
            deliver(self._core.ending, recorder)
        for observer in self._observers:
            assert self._core.ending is not None
            observer.ended(self, self._core.ending)
        self._call_callbacks()
        # Last, because the receiver may be resumed here, and the others must know the end before it runs.
        self._slot.wake(inline)

    def _call_callbacks(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        for callback, context in callbacks or ():
            assert self._core.ending is not None
            call_back(callback, context, self._core.ending)


# Functions that only the library calls. They are not methods, so that WebSocket has only public members.


def begin_close(ws: WebSocket, cause: Cause, code: int, reason: str = "") -> None:
    """Send the Close and return immediately; ``cause`` is that of the ending. No effect after the end."""
    ws._guard("begin_close")
    if not ws._over:
        ws._core.close(Close(code, reason), monotonic(), cause)
        ws._stream.settle()


def observe(ws: WebSocket, observers: tuple[Observer, ...]) -> None:
    """Have ``ended(ws, ending)`` of each observer called at the end of an open connection.

    Unlike a callback, an observer takes no memory of the connection. It must not raise.
    """
    ws._guard("observe")
    ws._observers = (*ws._observers, *observers) if ws._observers else observers


def count(ws: WebSocket, counter: Counter) -> None:
    """Have ``counter`` count a connection: its pings and its end.

    It may have ended already: the response of the opening handshake could not be sent, or what came with the
    request has ended it.
    """
    ws._counter = counter
    if ws._over:
        counter.ended(ws._core)


def close_for(ws: WebSocket, cause: Cause, code: int, reason: str = "") -> Coroutine[Any, Any, Ending]:
    """Close like :meth:`WebSocket.close`, with ``cause`` as the cause of the ending. Await the result."""
    begin_close(ws, cause, code, reason)
    return coroutines.wait_closed(ws)


def end_delivery(ws: WebSocket, cause: Cause, code: int, reason: str) -> None:
    """Begin to close for ``cause``, and deliver no more messages to a handler that answers them.

    A message that crosses the Close could be handled but not answered, and the peer would ask
    again elsewhere. A handler that has consumed messages and has never sent one owes no answer, so
    it still receives what comes. For a first message that crosses the Close it is unknown
    whether it is a question, so it is dropped, too.
    """
    core = ws._core
    if core.has_sent() or not core.messages_consumed():
        core.pause(Pause.DELIVERY)
    else:
        core.resume(Pause.DELIVERY)
    begin_close(ws, cause, code, reason)


def answers_close(ws: WebSocket) -> bool:
    """Whether a Close of the peer has come; also one that a late loop has not read yet."""
    ws._stream.tick()
    return ws._core.received is not None


def say(ws: WebSocket, message: str) -> None:
    """Send a message of the control channel. No effect after the end."""
    ws._core.say(message)
    ws._stream.settle()


def stop_delivery(ws: WebSocket) -> None:
    """Drop the messages that arrive from now on. Used before a close."""
    ws._core.pause(Pause.DELIVERY)


def quiesce(ws: WebSocket, callback: Callable[[], object], quiet: float) -> Quiescence:
    """Call ``callback()`` once, when the application waits for a message and none is there or on the way.

    If the application waits already, that is ``quiet`` seconds from now: a peer that sends the next
    question as soon as it has an answer has that question on the way. If no message has ever come,
    the callback is called immediately. A Close that the callback begins leaves together with the answer to
    the last message. The callback is not called if the connection closes otherwise. The
    :class:`Quiescence` that is returned can stop the reading from the peer.
    """
    receiver = ws._core.receiver
    assert receiver is not None
    receiver.quiescence = quiescence = Quiescence(ws._stream, receiver, quiet, callback)
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


def last_message_at(ws: WebSocket) -> float:
    """When the last message came or went, or the connection opened, in seconds of the monotonic clock."""
    return ws._core.last_message_at


def loop_of(ws: WebSocket) -> asyncio.AbstractEventLoop:
    """The event loop that the connection belongs to."""
    loop: asyncio.AbstractEventLoop = ws._stream.loop
    return loop


def deliver_to(ws: WebSocket, receiver: Receiver) -> None:
    """Deliver messages to ``receiver`` from now on, instead of to tasks."""
    ws._core.deliver_to(receiver)
    receiver.deliver(False)
    if ws._core.answering:
        ws._answer_later()


def socket_of(ws: WebSocket) -> _socket.socket | None:
    """The socket; None after the end of TCP."""
    return ws._stream.sock


class _WeakLink:
    """The weak reference from a client's stream to its WebSocket: only the application keeps it alive."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ref(ws)

    def changed(self, inline: bool) -> None:
        """See ``WebSocket._changed``."""
        ws = self._ws()
        if ws is not None:
            ws._wake_waiters(inline)


class _Closed:
    """See :attr:`WebSocket.closed`."""

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


# These methods return coroutines or equivalents. inspect and unittest.mock need the mark to know that.
for _function in (
    WebSocket.recv,
    WebSocket.read,
    WebSocket.send,
    WebSocket.ping,
    WebSocket.close,
    WebSocket.wait_closed,
):
    mark_coroutine_function(_function)
