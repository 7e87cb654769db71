"""The blocking client: ``connect``, and ``reconnecting``, which connects again."""

from __future__ import annotations

import os
import socket
import ssl as tls
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, Literal, Unpack

from ..client.connect import ConnectKeywords, HeadersArgument, URIArgument
from ..client.connect import connect as connect_async
from ..client.reconnecting import ReconnectLoop, servers
from ..client.retry import RetryPolicy, StopReason
from ..client.state import ClientState
from ..client.token import TokenArgument
from ..ending import Ending
from ..errors import ConcurrencyError, HandshakeError
from ..options import OptionKeywords, Options
from .asking import in_a_thread
from .background import background, exiting
from .bridge import Bridge
from .executor import SerialExecutor
from .portal import Portal
from .websocket import WebSocket

__all__ = ["connect", "reconnecting"]


def connect(  # size: the documentation of the arguments
    uri: URIArgument,
    *,
    ssl: tls.SSLContext | None = None,
    additional_headers: HeadersArgument = (),
    unix_path: str | os.PathLike[str] | None = None,
    proxy: str | Literal[True] | None = True,
    proxy_ssl: tls.SSLContext | None = None,
    server_hostname: str | None = None,
    host: str | None = None,
    port: int | None = None,
    sock: socket.socket | None = None,
    local_addr: tuple[str, int] | None = None,
    family: int = 0,
    follow_redirects: bool = True,
    token: TokenArgument | None = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> WebSocket:
    """Open a client connection and return it; blocks until the opening handshake is done.

    The wait is at most ``open_timeout`` (default: 10 s).

    Use the connection in a ``with`` block, or call its ``close()``. Leaving the block closes with 1000 and
    waits for the end; an interruption (Ctrl-C) in the block closes with 1001.

    All arguments are those of :class:`endwell.connect`.

    Args:
        uri: A ``ws://`` or ``wss://`` URI. A user name and a password in it are sent as Basic
            authorization (RFC 7617). Or a plain function that returns it, which is called in a thread of
            its own and has to return within ``open_timeout``.
        ssl: The TLS context for a ``wss://`` URI. Default: ``ssl.create_default_context()``.
        additional_headers: Headers to send with the request: a mapping, or pairs of a name and a value;
            or a function that returns them, like that for ``uri``.
        unix_path: The path of a Unix socket to connect to. The URI then determines only the request
            and the TLS host name.
        proxy: The URL of the proxy to connect through, or None. Default: True, the proxy of the environment
            or the system.
        proxy_ssl: The TLS context for an ``https://`` proxy. Default: ``ssl.create_default_context()``.
        server_hostname: The name that the server's certificate must have. Default: the host of ``uri``.
        host: The host to connect to. Default: the host of ``uri``.
        port: The port to connect to. Default: the port of ``uri``.
        sock: A connected stream socket to use. ``connect`` closes it in any case. Default: None.
        local_addr: The local address ``(host, port)`` to connect from. Default: the system chooses it.
        family: ``socket.AF_INET`` or ``socket.AF_INET6``. Default: 0, both.
        follow_redirects: Whether to follow HTTP redirects. Default: True.
        token: A bearer token: a str, or a function that returns a str or a :class:`endwell.Token`, which is
            called like that for ``uri``, and again at 80 % of the life of the token.
        options: The :class:`endwell.Options` of the connection. Default: ``Options()``.
        **keywords: Fields of :class:`endwell.Options`, which override those of ``options``.

    Raises:
        ValueError: If ``uri``, a header or an option is malformed.
        TypeError: If an argument has the wrong type or an unknown name.
        HandshakeRejected: If the server answers with an HTTP status other than 101.
        HandshakeError: For every other failure to connect.
        ConcurrencyError: In the thread of the library's event loop, where the call would wait for itself.
        RuntimeError: If threads are monkey-patched by gevent or eventlet.
        NotImplementedError: On Windows.

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
        ```
    """
    portal = background()
    connecting = connect_async(
        in_a_thread("uri", uri, portal),
        ssl=ssl,
        additional_headers=in_a_thread("additional_headers", additional_headers, portal),
        unix_path=unix_path,
        proxy=proxy,
        proxy_ssl=proxy_ssl,
        server_hostname=server_hostname,
        host=host,
        port=port,
        sock=sock,
        local_addr=local_addr,
        family=family,
        follow_redirects=follow_redirects,
        token=in_a_thread("token", token, portal),
        options=options,
        **keywords,
    )
    return portal.run(_open, connecting, portal)


async def _open(connecting: connect_async, portal: Portal) -> WebSocket:
    return WebSocket(Bridge(await connecting, portal))


class reconnecting:
    """Connect, and reconnect when the connection ends: ``for ws in reconnecting(url):``.

    It behaves like :class:`endwell.reconnecting`, with blocking connections. One thread runs the loop;
    :meth:`stop` and :meth:`close` may be called from other threads. Ctrl-C leaves the loop
    immediately, whatever it waits for.

    The callbacks run one after the other in a separate thread, so they may block. An attempt waits until its
    ``on_attempt`` has returned.

    Args:
        url: The URI, or a function that returns it before each attempt, as in :func:`connect`, or a
            sequence of these, as in :class:`endwell.reconnecting`. Each attempt resolves the host name
            anew. While a function of an earlier attempt still runs, an attempt waits for its result.
        policy: Decides from an :class:`endwell.Ending` or a :exc:`endwell.HandshakeError` whether to
            reconnect, and when. Default: ``RetryPolicy()``.
        on_attempt: ``on_attempt(number)`` is called before each attempt; the first is number 1.
        on_ending: ``on_ending(last, verdict)`` is called for each :class:`endwell.Ending` and each
            :exc:`endwell.HandshakeError`. ``verdict`` is the seconds until the next attempt, or the
            :class:`endwell.StopReason`. Exceptions in a callback are logged.
        on_state: ``on_state(state)`` is called with each new :attr:`state`.
        **keywords: The other arguments of :func:`connect`.

    Raises:
        ValueError: At the call, as :func:`connect` does.
        TypeError: At the call, as :func:`connect` does, and for a callback that is not a plain function.
        RuntimeError: When the loop begins, if an earlier loop has ended or :meth:`stop` was called.
        ConnectionClosed: In the loop, if a new connection would end in the same way.
        HandshakeError: In the loop, if a new attempt would fail in the same way.
        GaveUp: In the loop, if the policy's ``max_retries`` or ``max_time`` is exceeded.
        NotImplementedError: In the loop, on Windows.

    Example:
        ```python
        import endwell
        from endwell.sync import reconnecting, serving

        server = endwell.Server()

        @server.websocket("/")
        def greet(ws):
            ws.send("hello")

        with serving(server, port=0):
            for ws in reconnecting(f"ws://127.0.0.1:{server.port}/"):
                for message in ws:
                    print(message)
        ```
    """

    def __init__(
        self,
        url: URIArgument | Sequence[URIArgument],
        *,
        policy: RetryPolicy | None = None,
        on_attempt: Callable[[int], object] | None = None,
        on_ending: Callable[[Ending | HandshakeError, float | StopReason], object] | None = None,
        on_state: Callable[[ClientState], object] | None = None,
        **keywords: Unpack[ConnectKeywords],
    ) -> None:
        self._portal = background()
        self._client = _Client(
            self._portal,
            url,
            policy=policy,
            on_attempt=on_attempt,
            on_ending=on_ending,
            on_state=on_state,
            **keywords,
        )

    def __iter__(self) -> Iterator[WebSocket]:
        self._portal.run(self._begin)
        return self._connections()

    @property
    def state(self) -> ClientState:
        """What the client does at the moment, for a user interface: a new object for each change.

        It may be read in any thread.
        """
        return self._client.state

    def _connections(self) -> Iterator[WebSocket]:
        try:
            while (ws := self._next_connection()) is not None:
                yield ws
        finally:
            # The loop may be left in any way, and the generator be closed in any thread. This does not wait.
            self._client.leave()

    def _next_connection(self) -> WebSocket | None:
        try:
            return None if exiting() else self._portal.run(self._next)
        except ConcurrencyError:
            # The interpreter exits, and this is a daemon thread: its loop ends as after stop().
            if exiting():
                return None
            raise

    async def _begin(self) -> None:
        self._client.begin()

    async def _next(self) -> WebSocket | None:
        ws = await self._client.next()
        return None if ws is None else WebSocket(Bridge(ws, self._portal))

    def stop(self) -> None:
        """End the loop quietly, without waiting.

        A pending wait or attempt is cancelled, and an open connection is closed with 1000. May be called
        from any thread and from a signal handler.
        """
        self._portal.tell(self._client.stop)

    def close(self) -> None:
        """Do what :meth:`stop` does, then wait for the end of the connection.

        ``contextlib.closing`` calls it.
        """
        self._portal.run(self._client.aclose)


class _Client(ReconnectLoop):
    """The asyncio client in the event loop. Its callbacks run in a thread."""

    def __init__(self, portal: Portal, url: URIArgument | Sequence[URIArgument], **keywords: Any) -> None:
        for name in ("additional_headers", "token"):
            if name in keywords:
                keywords[name] = in_a_thread(name, keywords[name], portal)
        super().__init__([in_a_thread("url", uri, portal) for uri in servers(url)], **keywords)
        self._calls = SerialExecutor(portal.reconnecting_callbacks)
        self._context = copy_context()

    def _call(self, callback: Callable[..., object] | None, *arguments: Any) -> None:
        if callback is not None:
            self._calls.add(partial(self._context.run, super()._call, callback, *arguments))

    async def _announce(self) -> None:
        await super()._announce()
        if self._on_attempt is not None:
            await self._calls.flushed()
