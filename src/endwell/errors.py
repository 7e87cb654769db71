"""Every exception of the package.

Each class carries its consequence, the close code or the HTTP status. The code that raises or handles an
exception does not choose it.
"""

# size: the classes are short; their documentation is not.
from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from .codes import CloseCode, Retry
from .ending import Cause, Close, Ending
from .http import Headers, Response

__all__ = [
    "BadRequest",
    "BodyTooLarge",
    "BusUnavailable",
    "ClientDisconnected",
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "EndwellError",
    "Forbidden",
    "GaveUp",
    "HandshakeError",
    "HandshakeRejected",
    "HeadTooLarge",
    "InvalidData",
    "InvalidHandshake",
    "LengthRequired",
    "MessageTooBig",
    "MethodNotAllowed",
    "MisdirectedRequest",
    "NotFound",
    "PeerError",
    "PolicyViolation",
    "ProtocolError",
    "ProxyError",
    "RangeNotSatisfiable",
    "RequestRefused",
    "RequestTimeout",
    "RoomLimit",
    "ServiceUnavailable",
    "StartupFailed",
    "StopReconnecting",
    "TooManyConnections",
    "TooManyRequests",
    "UnknownMethod",
    "UnsupportedByProtocol",
    "UnsupportedCoding",
    "UnsupportedMediaType",
    "UpgradeRequired",
]

#: What a client is told if the application has not caught a `BusUnavailable`.
UNAVAILABLE = "a service is not available"


class EndwellError(Exception):
    """The base class of every exception that this package defines.

    Example:
        ```python
        import asyncio

        from endwell import EndwellError, connect


        async def main():
            try:
                async with connect("ws://127.0.0.1:9/", open_timeout=5) as ws:
                    await ws.send("hello")
            except EndwellError as exc:
                print(exc)


        asyncio.run(main())
        ```
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ calls the class with the text alone; some of these classes need more arguments.
        return _restored, (type(self), self.args), self.__dict__


def _restored(cls: type[EndwellError], arguments: tuple[Any, ...]) -> EndwellError:
    error = cls.__new__(cls, *arguments)
    error.args = arguments  # OSError.__new__() leaves this to __init__(), which is not called
    return error


# --- raised to the application -----------------------------------------------


class ConnectionClosed(EndwellError):
    """The connection has ended.

    It is always raised as one of its subclasses, `ConnectionClosedOK` or `ConnectionClosedError`. Catch
    `ConnectionClosed` unless the difference matters.

    Args:
        ending: How and why the connection ended; also the attribute `ending`.

    Example:
        ```python
        import asyncio

        from endwell import ConnectionClosed, Server, connect

        server = Server()


        @server.websocket("/")
        async def bye(ws):
            await ws.close(4001, "bye")


        async def main():
            async with server.serving(port=0):
                async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    try:
                        await ws.recv()
                    except ConnectionClosed as exc:
                        print(exc.code, exc.reason, exc.ending.cause)


        asyncio.run(main())
        ```
    """

    def __init__(self, ending: Ending) -> None:
        super().__init__(str(ending))
        self.ending = ending

    @property
    def code(self) -> int:
        """The close code: `ending.code`."""
        return self.ending.code

    @property
    def reason(self) -> str:
        """The reason of the Close: `ending.reason`."""
        return self.ending.reason

    @staticmethod
    def of(ending: Ending) -> ConnectionClosed:
        """The exception for an ending.

        Args:
            ending: How and why the connection ended.

        Returns:
            A `ConnectionClosedOK` if `ending.ok`, else a `ConnectionClosedError`.
        """
        return (ConnectionClosedOK if ending.ok else ConnectionClosedError)(ending)


class ConnectionClosedOK(ConnectionClosed):
    """The connection ended normally, without a fault (`Ending.ok` is True).

    Example:
        ```python
        import asyncio

        from endwell import ConnectionClosedOK, Server, connect

        server = Server()


        @server.websocket("/")
        async def handler(ws):
            await ws.close(1000, "done")


        async def main():
            async with server.serving(port=0):
                async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    try:
                        await ws.recv()
                    except ConnectionClosedOK as exc:
                        print(exc.code)


        asyncio.run(main())
        ```
    """


class ConnectionClosedError(ConnectionClosed):
    """The connection ended with a fault (`Ending.ok` is False).

    Example:
        ```python
        import asyncio

        from endwell import ConnectionClosedError, Server, connect

        server = Server()


        @server.websocket("/")
        async def handler(ws):
            await ws.close(1011, "the database is down")


        async def main():
            async with server.serving(port=0):
                async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    try:
                        await ws.recv()
                    except ConnectionClosedError as exc:
                        print(exc.code)


        asyncio.run(main())
        ```
    """


class ClientDisconnected(ConnectionClosed, OSError):
    """An ASGI application called `send()` after the end of the connection.

    It is an OSError, because the ASGI specification asks for one: "the server should raise a server-specific
    subclass of OSError". It has the attributes of `ConnectionClosed`: `ending`, `code` and `reason`. Starlette
    replaces it by a `WebSocketDisconnect` with the code 1006; this exception is then its `__context__`.

    Args:
        ending: How and why the connection ended; also the attribute `ending`.

    Example:
        ```python
        from endwell.asgi import ClientDisconnected


        async def app(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            try:
                while True:
                    await send({"type": "websocket.send", "text": "tick"})
            except ClientDisconnected as exc:
                print(exc.ending)
        ```
    """


class StartupFailed(EndwellError):
    """An ASGI application could not start: it has answered `lifespan.startup` with `lifespan.startup.failed`.

    It is also raised for an application that does not support the lifespan protocol, if `Server.mount()` was told
    that it does. `Server.run()` logs the error and exits with the status 3, as uvicorn does.

    Example:
        ```python
        import asyncio

        from endwell import Server
        from endwell.asgi import StartupFailed

        server = Server()


        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})


        server.mount("/", app)


        async def main():
            try:
                async with server.serving(port=0):
                    pass
            except StartupFailed as exc:
                print(exc)


        asyncio.run(main())
        ```
    """


class ConcurrencyError(EndwellError, RuntimeError):
    """A call was made in the wrong task, thread, event loop or process.

    Examples: two tasks receive from one connection at the same time; a blocking call is made in the thread of
    the event loop, where it would never return. The text names the right way.

    Example:
        ```python
        import asyncio

        from endwell import ConcurrencyError, Server, connect

        server = Server()


        @server.websocket("/")
        async def handler(ws):
            await ws.wait_closed()


        async def main():
            async with server.serving(port=0):
                async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    first = asyncio.create_task(ws.recv())
                    await asyncio.sleep(0)
                    try:
                        await ws.recv()
                    except ConcurrencyError as exc:
                        print(exc)
                    first.cancel()


        asyncio.run(main())
        ```
    """


class UnsupportedByProtocol(EndwellError, TypeError):
    """The protocol version of this connection has no such feature: binary messages, or pings.

    Only versions before RFC 6455 lack a feature. Nothing was sent.

    Example:
        ```python
        import asyncio

        from endwell import Server, UnsupportedByProtocol, connect

        server = Server(legacy=True)


        @server.websocket("/")
        async def handler(ws):
            await ws.wait_closed()


        async def main():
            async with server.serving(port=0):
                async with connect(f"ws://127.0.0.1:{server.port}/", version="hixie-76") as ws:
                    try:
                        await ws.send(b"binary")
                    except UnsupportedByProtocol as exc:
                        print(exc)


        asyncio.run(main())
        ```
    """


class HandshakeError(EndwellError):
    """The opening handshake of a client failed. The base class of what `connect()` raises.

    Args:
        ending: How and why the connection ended; also the attribute `ending`.
        message: The text of the exception. Default: the sentence of the ending.
        phase: What had not succeeded yet; also the attribute `phase`: `"arguments"` until the functions that were
            given as arguments have returned, `"proxy"` until the proxy has connected to the server,
            `"connect"` until TCP is connected without a proxy, `"tls"` until the TLS handshake is complete,
            `"http"` after that. Default: `"http"`.

    Example:
        ```python
        import asyncio

        from endwell import HandshakeError, connect


        async def main():
            try:
                async with connect("ws://127.0.0.1:9/", open_timeout=5):
                    pass
            except HandshakeError as exc:
                print(exc.phase, exc.ending.cause)


        asyncio.run(main())
        ```
    """

    def __init__(self, ending: Ending, message: str = "", phase: str = "http") -> None:
        super().__init__(message or str(ending))
        self.ending = ending
        self.phase = phase


class HandshakeRejected(HandshakeError):
    """The server answered the opening handshake with an HTTP response other than 101.

    If `phase` is `"proxy"`, an HTTP proxy has refused to connect to the server, with a response other than 2xx.

    Args:
        ending: How and why the connection ended; also the attribute `ending`.
        response: The response of the server or the proxy; also the attribute `response`. It holds at most
            `max_refusal` bytes of the body: what has arrived when the body or TCP ends, or at `open_timeout`.
        server: The server that answered, for the text of the exception.
        proxy: The proxy that answered, for the text of the exception; `""` if the server answered.

    Example:
        ```python
        import asyncio

        from endwell import HandshakeRejected, Server, connect

        server = Server()


        async def main():
            async with server.serving(port=0):
                try:
                    async with connect(f"ws://127.0.0.1:{server.port}/nowhere"):
                        pass
                except HandshakeRejected as exc:
                    print(exc.response.status)


        asyncio.run(main())
        ```
    """

    def __init__(self, ending: Ending, response: Response, server: str = "", proxy: str = "") -> None:
        who = f"the proxy {proxy}" if proxy else "server"
        refusal = f"{who} refused with HTTP {response.status} {response.reason}".rstrip()
        super().__init__(ending, f"{server}: {refusal}" if server else refusal, "proxy" if proxy else "http")
        self.response = response


class StopReconnecting(EndwellError):
    """Raised by an application's function for `uri` or `additional_headers`: another attempt would fail, too.

    `connect()` and `reconnecting()` call these functions before each attempt. Any other exception in them is
    a failed attempt, after which `reconnecting()` tries again. After this one its loop raises the
    HandshakeError, whose `__cause__` it is.

    Example:
        ```python
        import asyncio

        from endwell import HandshakeError, StopReconnecting, reconnecting


        def headers():
            raise StopReconnecting("the user has signed out")


        async def main():
            try:
                async for ws in reconnecting("ws://127.0.0.1:9/", additional_headers=headers):
                    await ws.send("hello")
            except HandshakeError as exc:
                print(exc.__cause__)


        asyncio.run(main())
        ```
    """


class GaveUp(EndwellError):
    """A reconnecting client stopped trying, because it reached a limit of its `RetryPolicy`.

    Args:
        why: The limit that was reached.
        last: The exception of the last attempt; also the attribute `last`. Its ending is `ending`.

    Example:
        ```python
        import asyncio

        from endwell import GaveUp, RetryPolicy, reconnecting


        async def main():
            policy = RetryPolicy(base=0.1, max_retries=1)
            try:
                async for ws in reconnecting("ws://127.0.0.1:9/", policy=policy):
                    await ws.send("hello")
            except GaveUp as exc:
                print(exc.last.ending.cause)


        asyncio.run(main())
        ```
    """

    def __init__(self, why: str, last: ConnectionClosed | HandshakeError) -> None:
        super().__init__(f"{why}; the last attempt: {last}")
        self.last = last
        self.ending: Ending = last.ending


class BusUnavailable(EndwellError):
    """The bus that connects the rooms of several processes is not available.

    The text says whether a message may have been sent.

    A handler that does not catch it closes the connection with 1013, so clients return later. A hook, an `accept`
    function or a page answers with 503 and `Retry-After: 5`. One line is logged at WARNING, without a traceback.

    Example:
        ```python
        from endwell import Server
        from endwell.rooms import BusUnavailable

        server = Server()

        @server.websocket("/")
        async def handler(ws):
            async for message in ws:
                try:
                    await server.rooms["lobby"].publish(message)
                except BusUnavailable as exc:
                    await ws.send(f"not sent: {exc}")
        ```
    """


def unavailable(exc: BaseException) -> BusUnavailable | None:
    """The `BusUnavailable` that ``exc`` is, or the first one of a group that has nothing else (of a TaskGroup)."""
    if isinstance(exc, BaseExceptionGroup):
        found = [unavailable(each) for each in exc.exceptions]
        return None if None in found else found[0]
    return exc if isinstance(exc, BusUnavailable) else None


def close_after(exc: BaseException) -> tuple[CloseCode, str]:
    """The code and the reason of the Close that follows from an exception that the application has not caught."""
    if unavailable(exc) is None:
        return CloseCode.INTERNAL_ERROR, ""
    return CloseCode.TRY_AGAIN_LATER, UNAVAILABLE


class RoomLimit(EndwellError):
    """A limit of `endwell.rooms` is exceeded; the text names the limit. Nothing was changed.

    A handler that lets it pass closes the connection with 1011, as with any exception. Catch it where the client
    chooses the names of rooms or the size of messages.

    Example:
        ```python
        from endwell import Server
        from endwell.rooms import RoomLimit

        try:
            Server().rooms["a" * 1000]
        except RoomLimit as exc:
            print(exc)
        ```
    """


# --- the peer broke a rule after the opening handshake: close with a code ----


class PeerError(EndwellError):
    """The peer broke a rule. The connection is closed with `code`."""

    cause: ClassVar[Cause]

    @property
    def code(self) -> CloseCode:
        """The close code that is sent to the peer."""
        code = self.cause.close_code
        assert code is not None
        return code

    @property
    def close(self) -> Close:
        """The Close that is sent to the peer; its reason is the text of the exception, cut to 123 bytes."""
        return Close(self.code, str(self).encode()[:123].decode(errors="ignore"))


class ProtocolError(PeerError):
    """The peer broke a rule of RFC 6455 or of an extension. Close code: 1002.

    The application finds it in `Ending.exception`.

    Example:
        ```python
        from endwell import ProtocolError

        print(ProtocolError("RSV2 or RSV3 is set").close)
        ```
    """

    cause = Cause.PROTOCOL_ERROR


class InvalidData(PeerError):
    """The peer sent text that is not UTF-8. Close code: 1007.

    The application finds it in `Ending.exception`.

    Example:
        ```python
        from endwell import InvalidData

        print(InvalidData("text is not UTF-8 at byte 3").close)
        ```
    """

    cause = Cause.INVALID_DATA


class MessageTooBig(PeerError):
    """The peer sent a message larger than `max_size`. Close code: 1009.

    The application finds it in `Ending.exception`.

    Example:
        ```python
        import asyncio

        from endwell import MessageTooBig, Server, connect

        server = Server()


        @server.websocket("/")
        async def handler(ws):
            await ws.send("a" * 1000)


        async def main():
            async with server.serving(port=0):
                async with connect(f"ws://127.0.0.1:{server.port}/", max_size=100) as ws:
                    await ws.read()
                print(isinstance(ws.ending.exception, MessageTooBig))


        asyncio.run(main())
        ```
    """

    cause = Cause.MESSAGE_TOO_BIG


class PolicyViolation(PeerError):
    """The peer exceeded a limit other than `max_size`, such as a `Limit` of rate. Close code: 1008.

    The application finds it in `Ending.exception`.

    Example:
        ```python
        from endwell import PolicyViolation

        print(PolicyViolation("message has too many fragments").close)
        ```
    """

    cause = Cause.POLICY_LIMIT


# --- the server refuses a request: it is answered with an HTTP status ---------


class RequestRefused(EndwellError):
    """The server refuses a request. Status: 400, or that of a subclass.

    A hook, an `accept` function or a page may raise it. For another status, write a subclass with its own
    `status`. Its `headers` are pairs of a name and a value.

    Args:
        message: The text of the exception, and the body of the response. It must not quote the client's data.
        detail: More text for the server's log.

    Example:
        ```python
        from endwell import RequestRefused


        class Gone(RequestRefused):
            status = 410


        print(RequestRefused("the id is missing").response().status, Gone("deleted").response().status)
        ```
    """

    #: The HTTP status of the response.
    status: ClassVar[int] = 400
    #: The header fields of the response.
    headers: Iterable[tuple[str, str]] = ()

    def __init__(self, message: str = "", *, detail: str = "") -> None:
        super().__init__(message)
        #: More text for the log. It may quote the client's data, as a `repr`. It is never sent.
        self.detail = detail

    def response(self) -> Response:
        """The HTTP response. Its body is the text of the exception, which never quotes the client's data."""
        return Response.text(f"{self}\n", self.status, Headers(self.headers))


class BadRequest(RequestRefused):
    """The request breaks HTTP or RFC 6455 §4.2.1. Status: 400."""


class Forbidden(RequestRefused):
    """The page's origin is not allowed. Status: 403."""

    status = 403


class NotFound(RequestRefused):
    """No route has this path. Status: 404."""

    status = 404


class MethodNotAllowed(RequestRefused):
    """The route does not serve this method. Status: 405."""

    status = 405

    def __init__(self, message: str = "", *, allow: Iterable[str] = ("GET", "HEAD")) -> None:
        super().__init__(message)
        self.headers = (("Allow", ", ".join(allow)),)


class RequestTimeout(RequestRefused):
    """The body of the request did not arrive in time. Status: 408."""

    status = 408


class LengthRequired(RequestRefused):
    """The request needs a Content-Length. Status: 411."""

    status = 411


class BodyTooLarge(RequestRefused):
    """The body of the request is too large, or the request must not have one. Status: 413."""

    status = 413


class UnsupportedMediaType(RequestRefused):
    """The handler cannot read a body of this Content-Type. Status: 415."""

    status = 415


class RangeNotSatisfiable(RequestRefused):
    """The file does not have the requested range. Status: 416, with the fields `headers`.

    RFC 9110 §15.5.17: a server that answers a byte-range request with this status "SHOULD generate a
    Content-Range header field specifying the current length of the selected representation".
    """

    status = 416

    def __init__(self, message: str = "", *, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.headers = headers


class MisdirectedRequest(RequestRefused):
    """The request is for a host that is not in `allowed_hosts`. Status: 421.

    RFC 9110 §7.4: "The 421 (Misdirected Request) status code in a response indicates that
    the origin server has rejected the request because it appears to have been misdirected".
    """

    status = 421


class TooManyRequests(RequestRefused):
    """Connections are opened faster than `Server.rate_limit` allows. Status: 429, with `Retry-After`."""

    status = 429

    def __init__(self, message: str = "", *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.headers = (("Retry-After", str(retry_after)),)


class HeadTooLarge(RequestRefused):
    """The head of the request exceeds a limit. Status: 431."""

    status = 431


class UpgradeRequired(RequestRefused):
    """The request asks for an unsupported WebSocket version, or for none. Status: 426.

    RFC 6455 §4.4: "If the server doesn't support the requested version, it MUST
    respond with a |Sec-WebSocket-Version| header field (...) containing all
    versions it is willing to use."
    """

    status = 426

    def __init__(self, message: str = "", versions: Iterable[str] = ("13",)) -> None:
        super().__init__(message)
        self.headers = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", ", ".join(versions)))


class UnknownMethod(RequestRefused):
    """The server does not know the method of the request. Status: 501.

    RFC 9110 §9.1: a server "that receives a request method that is unrecognized or not implemented SHOULD
    respond with the 501 (Not Implemented) status code".
    """

    status = 501


class UnsupportedCoding(RequestRefused):
    """The server does not decode the Transfer-Encoding of the request. Status: 501."""

    status = 501


class TooManyConnections(RequestRefused):
    """`max_connections` or `max_connections_per_address` is reached. Status: 503, with `Retry-After: 10`."""

    status = 503
    headers = (("Retry-After", "10"),)


class ServiceUnavailable(RequestRefused):
    """The server cannot serve this request now. Status: 503, with `retry_after` seconds as `Retry-After`."""

    status = 503

    def __init__(self, message: str = "", *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.headers = (("Retry-After", str(retry_after)),)


class InvalidHandshake(EndwellError):
    """The response of the server breaks HTTP or RFC 6455 §4.1. The client fails the connection.

    The application finds it in the `Ending.exception` of the `HandshakeError` that `connect()` raises.

    Example:
        ```python
        import asyncio

        from endwell import HandshakeError, connect


        async def greet(reader, writer):
            writer.write(b"SSH-2.0-example")
            await writer.drain()
            await reader.read()
            writer.close()


        async def main():
            server = await asyncio.start_server(greet, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            try:
                async with connect(f"ws://127.0.0.1:{port}/"):
                    pass
            except HandshakeError as exc:
                print(repr(exc.ending.exception))
            server.close()


        asyncio.run(main())
        ```
    """


class ProxyError(EndwellError):
    """A proxy refused to connect to the server, or its URL in the environment is malformed.

    The application finds it in the `Ending.exception` of the `HandshakeError` that `connect()` raises.

    Args:
        message: The text of the exception, which contains no credentials.
        retry: Whether a client should reconnect; also the attribute `retry`. If there is a `response`, its
            status decides instead. Default: `Retry.LATER`.
        response: The response of an HTTP proxy; also the attribute `response`; None for SOCKS.
        reply: The HTTP status, or the number of the SOCKS reply; also the attribute `reply`. None if the proxy
            was not asked.

    Example:
        ```python
        import asyncio

        from endwell import HandshakeError, ProxyError, connect


        async def main():
            try:
                async with connect("ws://example.com/", proxy="socks5h://127.0.0.1:9"):
                    pass
            except HandshakeError as exc:
                if isinstance(exc.ending.exception, ProxyError):
                    print("refused:", exc.ending.exception.reply)
                else:
                    print(exc.phase, exc)


        asyncio.run(main())
        ```
    """

    def __init__(
        self,
        message: str,
        *,
        retry: Retry = Retry.LATER,
        response: Response | None = None,
        reply: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry = retry
        self.response = response
        self.reply = reply
