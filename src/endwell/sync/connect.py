"""The blocking client: ``connect``; and ``serving``, a server for blocking code."""

from __future__ import annotations

import os
import ssl as tls
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Protocol, TypeVar, Unpack

from ..client.connect import connect as connect_async
from ..options import OptionKeywords, Options
from .background import background
from .bridge import Bridge
from .portal import Portal
from .websocket import WebSocket

__all__ = ["connect", "serving"]


def connect(  # size: the documentation of the arguments
    uri: str,
    *,
    ssl: tls.SSLContext | None = None,
    additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    unix_path: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> WebSocket:
    """Open a client connection and return it; blocks until the opening handshake is done.

    Use the connection in a ``with`` block, or call its ``close()``. Leaving the block closes with 1000 and
    waits for the end; an interruption (Ctrl-C) in the block closes with 1001.

    All arguments are those of :class:`endwell.connect`.

    Args:
        uri: A ``ws://`` or ``wss://`` URI. A user name and a password in it are sent as Basic
            authorization (RFC 7617).
        ssl: The TLS context for a ``wss://`` URI. Default: ``ssl.create_default_context()``.
        additional_headers: Headers to send with the request: a mapping, or pairs of a name and a value.
        unix_path: The path of a Unix socket to connect to. The URI then determines only the request
            and the TLS host name.
        options: The :class:`endwell.Options` of the connection. Default: ``Options()``.
        **keywords: Fields of :class:`endwell.Options`, which override those of ``options``.

    Raises:
        ValueError: If ``uri``, a header or an option is malformed.
        TypeError: If an argument has the wrong type or an unknown name.
        HandshakeRejected: If the server answers with an HTTP status other than 101.
        HandshakeError: For every other failure to connect.
        ConcurrencyError: In the thread of the library's event loop, where the call would wait for itself.
        RuntimeError: If threads are monkey-patched by gevent or eventlet.

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
        uri,
        ssl=ssl,
        additional_headers=additional_headers,
        unix_path=unix_path,
        options=options,
        **keywords,
    )
    return portal.run(_open, connecting, portal)


async def _open(connecting: connect_async, portal: Portal) -> WebSocket:
    return WebSocket(Bridge(await connecting, portal))


class _Server(Protocol):
    def serving(self, *args: Any, **keywords: Any) -> AbstractAsyncContextManager[Any]: ...


S = TypeVar("S", bound=_Server)


@contextmanager
def serving(server: S, *args: Any, **keywords: Any) -> Iterator[S]:
    """Run ``server.serving(...)`` for blocking code, in the library's event loop, while the block runs.

    Leaving the block drains the server, as :meth:`endwell.Server.serving` does.

    Args:
        server: The :class:`endwell.Server`.
        *args: The positional arguments of :meth:`endwell.Server.serving`.
        **keywords: The keyword arguments of :meth:`endwell.Server.serving`, such as ``port``.

    Raises:
        OSError: If the server cannot listen on the address.
        RuntimeError: If the server serves already, or threads are monkey-patched by gevent or eventlet.

    Example:
        ```python
        import endwell
        from endwell.sync import serving

        server = endwell.Server()

        @server.get("/")
        def index(request):
            return "hello"

        with serving(server, port=0):
            print(server.port)
        ```
    """
    portal = background()
    manager = server.serving(*args, **keywords)
    portal.run(manager.__aenter__)
    try:
        yield server
    finally:
        portal.run(manager.__aexit__, None, None, None)
