"""One call of an ASGI application for one WebSocket, from the opening handshake to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextvars import copy_context
from typing import Any, Protocol

from ..aio.awaiting import DONE
from ..aio.callbacks import call_back, check_callback
from ..aio.cancellation import is_cancelled
from ..aio.flag import Flag
from ..aio.opening import Answerable
from ..aio.waiters import Waiters
from ..aio.websocket import WebSocket, begin_close
from ..codes import CloseCode
from ..ending import Cause, Close, Ending
from ..errors import ConnectionClosed, close_after, unavailable
from ..http import Accept, Headers, Response
from ..protocol.negotiation import Accepted
from . import coroutines
from .application import Application
from .events import Events

__all__ = ["Host", "WebSocketCall"]

#: Maximum bytes of a response that are kept until its last part comes. A client does not read more: endwell's
#: keeps ``max_refusal``, 64 KiB, websockets' 1 MiB, and a browser nothing.
MAX_KEPT = 1 << 20


class Host(Protocol):
    """The server that runs the application."""

    @property
    def draining(self) -> Flag:
        """Set when the server begins to stop."""
        ...

    @property
    def logger(self) -> logging.Logger:
        """The server's log."""
        ...

    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The fields that the server adds to each response."""
        ...

    def log(self, outcome: str) -> None:
        """Write a line of the access log."""
        ...

    def accept(self, accepted: Accepted) -> WebSocket:
        """Send the 101 and return the WebSocket."""
        ...

    def refused(self, status: int) -> None:
        """The application has answered the request for a WebSocket with an HTTP response."""
        ...

    def returned(self, ws: WebSocket | None) -> None:
        """The application has returned or raised."""
        ...


class WebSocketCall:
    """Runs an application for one WebSocket.

    Adds its extensions to ``scope``. ``accepted`` is the negotiated opening handshake, which the application
    accepts or not.
    """

    __slots__ = (
        "_accepted",
        "_body",
        "_callbacks",
        "_exchange",
        "_finished",
        "_host",
        "_start",
        "_told",
        "_waiters",
        "connected",
        "events",
        "scope",
        "ws",
    )

    def __init__(self, exchange: Answerable, accepted: Accepted, scope: dict[str, Any], host: Host) -> None:
        self.scope = scope
        self.events = Events(self)
        #: The WebSocket, once the application has accepted.
        self.ws: WebSocket | None = None
        #: Whether the application has received ``websocket.connect``.
        self.connected = False
        self._exchange = exchange
        self._accepted: Accepted | None = accepted
        self._host = host
        # The status and the fields of an HTTP answer, and what has come of its body; None before its first part.
        self._start: tuple[int, Headers] | None = None
        self._body: bytearray | None = None
        # Whether the application may send nothing more, and whether it knows the end.
        self._finished = self._told = False
        self._waiters = Waiters()
        # The on_close callbacks that were registered before the answer.
        self._callbacks: list[Callable[[Ending], object]] = []
        scope["extensions"] = {
            "websocket.http.response": {},
            "endwell": {
                "ending": self.ending,
                "on_close": self.on_close,
                "bearer": self.bearer,
                "draining": host.draining,
                "websocket": self.websocket,
            },
        }

    # -- the extension ----------------------------------------------------------

    def ending(self) -> Ending | None:
        """How the connection ended; None before."""
        return self._exchange.ending if self.ws is None else self.ws.ending

    def bearer(self) -> str | None:
        """The token of the client: see :attr:`Request.bearer`. A function, so that no log of a scope shows it."""
        request = self._exchange.request
        return None if request is None else request.bearer

    def websocket(self) -> WebSocket | None:
        """The connection, for :class:`endwell.rooms.Room` and for ``authorize()``; None before it is accepted."""
        return self.ws

    def on_close(self, callback: Callable[[Ending], object]) -> None:
        """Register a callback: see :meth:`WebSocket.on_close`."""
        if self.ws is not None:
            self.ws.on_close(callback)
            return
        check_callback(callback)
        self._callbacks.append(callback)
        if self._exchange.ending is not None:
            self.over()

    # -- the application's task ---------------------------------------------------

    async def run(self, application: Application) -> None:
        """Call the application; then close the connection if it is still open."""
        try:
            returned = await application(self.scope, self.events.receive, self.events.send)
        except asyncio.CancelledError as exc:
            if is_cancelled():
                self._finish(Cause.CANCELLED, CloseCode.GOING_AWAY)
                raise
            self._fail(exc)  # the application awaited something that was cancelled
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fail(exc)
        else:
            if not self._answered() and not self._exchange.gone:
                self._host.logger.error("ASGI callable returned without completing handshake.")
            elif returned is not None:
                self._host.logger.error("ASGI callable should return None, but returned %r.", returned)
            self._finish(Cause.HANDLER_RETURNED, CloseCode.NORMAL_CLOSURE)

    def _fail(self, exc: BaseException) -> None:
        if (away := unavailable(exc)) is not None:
            self._host.logger.warning("ASGI application failed: %s", away)
        elif not self._tells_the_end(exc):
            request = self._exchange.request
            route = None if request is None else request.route
            extra = {"route": route}
            if self.ws is not None:
                extra["cause"] = Cause.HANDLER_ERROR.value
            self._host.logger.error("Exception in ASGI application", exc_info=exc, extra=extra)
        self._finish(Cause.HANDLER_ERROR, *close_after(exc))

    def _tells_the_end(self, exc: BaseException) -> bool:
        """Whether ``exc`` only says that the connection has ended, so that it is not a fault."""
        if isinstance(exc, BaseExceptionGroup):
            return all(map(self._tells_the_end, exc.exceptions))
        if isinstance(exc, ConnectionClosed):  # from `send()` or `Room.join()`
            return exc.ending is self.ending()
        # Starlette's, by name, because Starlette may not be installed.
        return type(exc).__name__ == "WebSocketDisconnect" and self.ending() is not None

    def _finish(self, cause: Cause, code: int, reason: str = "") -> None:
        """Answer the request or close the WebSocket, whichever the application has not done."""
        self._finished = True
        self.events.close()
        self._host.returned(self.ws)
        if self.ws is not None:
            begin_close(self.ws, cause, code, reason)
        elif self._start is not None and self._body is None:
            self._respond(b"")  # the body may be empty
        elif not self._answered() and not self._exchange.gone:
            self._host.log("500")
            self._refuse(Response(500, Headers(self._fields(())), b"Internal Server Error"))

    def _answered(self) -> bool:
        # A response whose body is incomplete is not an answer: nothing of it has been sent.
        return self._accepted is None or (self._start is not None and self._body is None)

    # -- receive --------------------------------------------------------------------

    def receive(self) -> Coroutine[Any, Any, dict[str, Any]]:
        """Receive an event before the request is answered, or after it was refused."""
        return coroutines.connect(self)

    async def answered(self) -> None:
        """Wait until the request is answered or the client has disconnected."""
        while self._accepted is not None and not self._exchange.gone:
            await self._waiters.wait()

    async def ended(self) -> Ending:
        """Wait for the end of the WebSocket."""
        if self.ws is not None:
            return await self.ws.closed
        ending = self._exchange.ending
        assert ending is not None
        return ending

    def disconnected(self) -> dict[str, Any]:
        """The event ``websocket.disconnect``. Raises RuntimeError the second time."""
        if self._told:
            # Not the event again: an application that ignores it would loop for ever without suspending.
            raise RuntimeError("receive() was called after 'websocket.disconnect'.")
        self._told = True
        ending = None if self.ws is None else self.ws.ending
        if ending is None or (ending.received is None and ending.sent is None):
            # The specification has no code for a connection that ends without a Close. Its author calls 1006
            # "the best one to use" (django/asgiref#364).
            return {"type": "websocket.disconnect", "code": int(CloseCode.ABNORMAL_CLOSURE)}
        return {"type": "websocket.disconnect", "code": int(ending.code), "reason": ending.reason}

    def gone(self) -> None:
        """The request is answered without a WebSocket, or the client has disconnected before the answer."""
        self._accepted = None
        self._waiters.wake()

    def over(self) -> None:
        """TCP has ended."""
        callbacks, self._callbacks = self._callbacks, []
        if (ending := self.ending()) is not None:
            for callback in callbacks:
                call_back(callback, copy_context(), ending)

    # -- send -------------------------------------------------------------------------

    def send(self, event: dict[str, Any]) -> Coroutine[Any, Any, None]:
        """Handle any event but a message on an open WebSocket. Raises RuntimeError for one out of order."""
        kind = event["type"]
        if self._finished:
            raise RuntimeError(f"Unexpected ASGI message '{kind}', after sending 'websocket.close'.")
        if self.ws is not None:
            return self._send_open(kind, event)
        self._check_order(kind)
        if self._exchange.gone:
            return coroutines.refuse(self)
        if self._accepted is None:  # the server has answered, because it stops
            return DONE
        if kind == "websocket.http.response.body":
            self._add_to_body(event.get("body") or b"", more=event.get("more_body", False))
        elif kind == "websocket.accept":
            self._accept(self._accepted, event)
        elif kind == "websocket.close":
            self._finished = True
            self._host.log("403")
            self._refuse(Response(403, Headers(self._fields(()))))
        else:
            self._begin_response(event)
        return DONE

    def _check_order(self, kind: str) -> None:
        """Raise RuntimeError if an event of this kind may not be sent before the request is answered."""
        if self._start is not None:
            if kind != "websocket.http.response.body":
                raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body' but got '{kind}'.")
        elif kind not in ("websocket.accept", "websocket.close", "websocket.http.response.start"):
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' or "
                f"'websocket.http.response.start' but got '{kind}'."
            )

    def _send_open(self, kind: str, event: dict[str, Any]) -> Coroutine[Any, Any, None]:
        assert self.ws is not None
        if kind not in ("websocket.send", "websocket.close"):
            raise RuntimeError(
                f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'."
            )
        if not self.ws.is_open:
            return coroutines.refuse(self)
        code, reason = event.get("code"), event.get("reason") or ""
        code = CloseCode.NORMAL_CLOSURE if code is None else code
        Close(code, reason)  # raises ValueError; then nothing was sent
        self._finished = True
        self.events.close()
        begin_close(self.ws, Cause.APP_CLOSED, code, reason)
        return DONE

    def _accept(self, accepted: Accepted, event: dict[str, Any]) -> None:
        headers, request = self._fields(event.get("headers") or ()), self._exchange.request
        assert request is not None
        accepted.add(request, Accept(subprotocol=event.get("subprotocol"), headers=headers))
        self._accepted = None
        self._host.log("[accepted]")
        self.ws = self._host.accept(accepted)
        self.events.open(self.ws)
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self.ws.on_close(callback)
        self._waiters.wake()

    def _begin_response(self, event: dict[str, Any]) -> None:
        status = event["status"]
        if not 200 <= status <= 599:
            raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
        self._start = status, Headers(self._fields(event.get("headers") or ()))
        self._host.log(str(status))

    def _add_to_body(self, octets: object, *, more: bool) -> None:
        if not isinstance(octets, bytes | bytearray | memoryview):
            raise TypeError(f"the body of a response must be bytes, not {type(octets).__name__}")
        part = bytes(octets)
        if self._body is None:
            self._body = bytearray()
        if more and len(self._body) + len(part) > MAX_KEPT:
            self._finished = True  # with another part, the response would have a hole
            self._body.clear()
            raise RuntimeError(
                f"The body of the response to a WebSocket's request has more than {MAX_KEPT} bytes before its last part."
            )
        self._body += part
        if not more:
            self._finished = True
            self._respond(bytes(self._body))

    def _respond(self, body: bytes) -> None:
        if self._exchange.gone or self._accepted is None:
            return
        assert self._start is not None
        status, headers = self._start
        self._refuse(Response(status, headers, body))

    def _refuse(self, response: Response) -> None:
        self._host.refused(response.status)
        self._exchange.answer(response)
        self.gone()

    def _fields(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
        fields = [*self._host.headers(), *headers]
        return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in fields]
