"""The asyncio client: ``connect``."""

from __future__ import annotations

import os
import re
import socket
import ssl as tls
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Literal, TypeAlias, Unpack
from urllib.parse import urljoin

from ..aio.dial import dial
from ..aio.route import Route
from ..aio.syscalls import monotonic
from ..aio.websocket import WebSocket, close_for
from ..codes import CloseCode
from ..ending import Cause
from ..errors import HandshakeRejected
from ..http import Headers
from ..http.bearer import MAX_RENEWAL
from ..options import OptionKeywords, Options, check_keywords
from ..protocol.handshake import Offer
from ..protocol.opening import offer
from ..protocol.uri import WebSocketURI, parse_uri
from . import tracing
from .asking import Asking
from .renewing import Renewing
from .token import Token, TokenArgument, check_token

__all__ = ["ConnectKeywords", "HeadersArgument", "URIArgument", "connect"]

HeaderFields: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
#: The arguments that may be functions, which are called before each attempt.
URIArgument: TypeAlias = str | Callable[[], str | Awaitable[str]]
HeadersArgument: TypeAlias = HeaderFields | Callable[[], HeaderFields | Awaitable[HeaderFields]]

#: Redirects that one :class:`connect` follows; the next one raises HandshakeRejected. Precedent: websockets.
MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Characters of the Location header that an error message quotes.
MAX_LOCATION = 80
#: What an error message does not quote of it, besides the query: both may contain credentials.
USERINFO = re.compile("//[^/]*@")
#: Lower-case names of the headers that are not sent to another origin after a redirect
#: (Tomcat's client sent them: CVE-2026-42498).
OWN_TO_ORIGIN = frozenset({"authorization", "cookie", "host", "proxy-authorization"})
#: The headers are checked with it while the URI is not known.
_ANY_URI = parse_uri("ws://localhost/")


class connect:
    """Open a client connection: ``async with connect(uri) as ws:`` or ``ws = await connect(uri)``.

    The call itself checks the arguments and does no I/O. Entering the ``async with`` block, or awaiting
    the object, resolves the host name, connects, does the TLS handshake and the opening handshake, and
    returns a :class:`WebSocket`. All of that has to succeed within ``open_timeout``, redirects included.

    Leaving the ``async with`` block closes the connection with 1000 and waits for the end. If the task
    is cancelled, the connection is closed with 1001.

    Args:
        uri: A ``ws://`` or ``wss://`` URI. A user name and a password in it are sent as Basic
            authorization (RFC 7617). Or a function that returns the URI or an awaitable of it. It is
            called when connecting, and has to return within ``open_timeout``. An exception in it is a
            failed attempt.
        ssl: The TLS context for a ``wss://`` URI. Default: ``ssl.create_default_context()``, which
            trusts the certificate authorities of the system. With a ``ws://`` URI it is used only after a
            redirect to ``wss://``.
        additional_headers: Headers to send with the request: a mapping, or pairs of a name and a
            value; or a function that returns them, like that for ``uri``. After a redirect to another
            origin, Authorization, Cookie, Host and Proxy-Authorization are not sent again.
        unix_path: The path of a Unix socket to connect to. The URI then determines only the request
            and the TLS host name.
        proxy: The URL of the proxy to connect through: ``http://``, ``https://`` (TLS to the proxy),
            ``socks5h://``, ``socks5://``, ``socks4a://`` or ``socks4://``, with a user name and a password if
            it needs them. ``socks5`` and ``socks4`` resolve the host name on this machine. None: no
            proxy. Default: True, the proxy of the environment or the system, except for loopback addresses.
        proxy_ssl: The TLS context for an ``https://`` proxy. Default: ``ssl.create_default_context()``.
        server_hostname: The name that the server's certificate must have, and that is sent in the TLS
            handshake (SNI). Default: the host of ``uri``.
        host: The host to connect to. The URI then determines only the request and the TLS host name. Default:
            the host of ``uri``.
        port: The port to connect to. Default: the port of ``uri``.
        sock: A connected stream socket to use. ``connect`` closes it in any case. Default: None.
        local_addr: The local address ``(host, port)`` to connect from; port 0 lets the system choose.
            Default: the system chooses both.
        family: ``socket.AF_INET`` or ``socket.AF_INET6``, the family of the addresses to connect to. With a
            proxy, it and ``local_addr`` apply to the proxy, and with ``socks5`` it also selects the addresses of
            the server. Default: 0, both.
        follow_redirects: Whether to follow HTTP redirects. If not, a redirect is a refusal. Default: True. With
            ``host``, ``port`` or ``server_hostname``, redirects to another host are refused, with ``port`` those
            to another port, too, and with ``unix_path`` or ``sock`` all.
        token: A bearer token, which is sent as ``Authorization: Bearer`` (RFC 6750): a str; or a
            function that returns a str or a :class:`Token`, or an awaitable of it, which is called like that
            for ``uri``. With ``Token(value, until)`` it is called again at 80 % of the life of the token, and
            the new one is sent to a server of endwell whose route has an ``accept`` function. If it fails
            then, that is logged, and it is called again at 80 % of the rest. The token is not sent to another
            origin after a redirect. Default: None.
        options: The :class:`Options` of the connection. Default: ``Options()``.
        **keywords: Fields of :class:`Options`, which override those of ``options``.

    Raises:
        ValueError: At the call, if ``uri``, a header, the token or an option is malformed, or if arguments
            contradict each other, such as ``token`` and a header Authorization or a user name in ``uri``.
        TypeError: At the call, if an argument has the wrong type or an unknown name.
        HandshakeRejected: When connecting, if the server answers with an HTTP status other than 101, or an
            HTTP proxy with one other than 2xx; its ``response`` is that answer, its ``phase`` says whose it is.
            At most 10 redirects are followed.
        HandshakeError: When connecting, for every other failure; its ``ending`` says which.
        NotImplementedError: When connecting, on Windows.

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

        asyncio.run(main())
        ```
    """

    def __init__(
        self,
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
    ) -> None:
        # size: the arguments
        self._ssl = ssl
        if not isinstance(follow_redirects, bool):
            raise TypeError(f"follow_redirects must be True or False, not {follow_redirects!r}")
        self._token = token if token is None or callable(token) else check_token(token)
        if not isinstance(ssl, tls.SSLContext | None):
            raise TypeError(f"ssl must be an ssl.SSLContext or None, not {ssl!r}")
        if not isinstance(options, Options | None):
            raise TypeError(f"options must be an Options or None, not {options!r}")
        self._route = Route(
            unix_path=unix_path,
            proxy=proxy,
            proxy_ssl=proxy_ssl,
            server_hostname=server_hostname,
            host=host,
            port=port,
            sock=sock,
            local_addr=local_addr,
            family=family,
        )
        self._follow_redirects = follow_redirects
        self._uri = uri if callable(uri) else self._parse(uri)
        check_keywords("connect", keywords, ConnectKeywords.__optional_keys__)
        self._options = (options or Options()).replace(**keywords)
        # Invalid arguments raise here, not when connecting.
        headers = self._check_headers(() if callable(additional_headers) else additional_headers)
        self._headers = additional_headers if callable(additional_headers) else headers
        self._ws: WebSocket | None = None
        # File and line of the call, for the ResourceWarning about a connection that was not closed.
        caller = sys._getframe(1)
        self._created_at = (caller.f_code.co_filename, caller.f_lineno)

    def __await__(self) -> Generator[object, None, WebSocket]:
        return self._open().__await__()

    async def __aenter__(self) -> WebSocket:
        self._ws = await self._open()
        return self._ws

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ws is not None
        if kind is not None and not issubclass(kind, Exception):
            # The task is cancelled or interrupted. The Close tells the peer that this side is going away.
            await close_for(self._ws, Cause.CANCELLED, CloseCode.GOING_AWAY)
        else:
            await self._ws.close()

    async def _open(self) -> WebSocket:
        ws = await (self._reach() if tracing.begin is None else self._traced(tracing.begin()))
        ws._created_at = self._created_at
        return ws

    async def _traced(self, attempt: tracing.Attempt) -> WebSocket:
        try:
            ws = await self._reach(attempt)
        except BaseException as exc:
            attempt.failed(exc)
            raise
        attempt.opened(ws)
        return ws

    async def _reach(self, attempt: tracing.Attempt | None = None) -> WebSocket:
        try:
            uri, headers, token, began = await self._ask(monotonic())
        except BaseException:
            if self._route.sock is not None:
                self._route.sock.close()
            raise
        for left in range(MAX_REDIRECTS, -1, -1):
            renewing = self._renewing(token)
            fields = headers if attempt is None else attempt.headers(uri, headers)
            offered = self._offer(uri, fields, token, renewing is not None)
            try:
                ws = await dial(uri, offered, self._ssl, self._route, began, renewing)
            except HandshakeRejected as refusal:
                location = refusal.response.headers.get("Location")
                followed = self._follow_redirects and refusal.phase == "http"
                if not followed or refusal.response.status not in REDIRECTS or location is None:
                    raise
                try:
                    target = self._redirect(uri, location, left)
                except ValueError as error:
                    shown = USERINFO.sub("//", location.partition("?")[0])[:MAX_LOCATION]
                    refusal.args = (f"{refusal}; its redirect to {shown!r} is not followed: {error}",)
                    raise refusal from None
                # Time during which this process was stalled does not count against the server.
                began += refusal.ending.stalled
            else:
                if renewing is not None:
                    renewing.attach(ws)
                return ws
            if _origin(target) != _origin(uri):
                headers = Headers(field for field in headers if field[0].lower() not in OWN_TO_ORIGIN)
                token = None
            uri = target
        raise AssertionError("the last redirect is not followed")

    async def _ask(self, began: float) -> tuple[WebSocketURI, Headers, Token | None, float]:
        """Return the URI, the headers and the token of this attempt, and when its ``open_timeout`` begins."""
        asking, uri, headers = Asking(began, self._options.open_timeout), self._uri, self._headers
        token = self._token
        if callable(uri):
            uri = await asking.ask("uri", uri, self._parse)
        if callable(headers):
            headers = await asking.ask("additional_headers", headers, self._check_headers)
        if callable(token):
            token = await asking.ask("token", token, check_token)
        return uri, headers, token, asking.began

    def _renewing(self, token: Token | None) -> Renewing | None:
        """What renews the token of the connection; None if that is not possible."""
        function = self._token
        if token is None or token.until is None or not callable(function):
            return None
        if self._options.max_size is not None and self._options.max_size < MAX_RENEWAL:
            return None  # the greeting of the server, which has the token, could be a message above the limit
        limit = self._options.open_timeout
        return Renewing(token, lambda: Asking(monotonic(), limit).ask("token", function, check_token))

    def _check_headers(self, fields: HeaderFields) -> Headers:
        headers = _headers(fields)
        if self._token is not None and "Authorization" in headers:
            raise ValueError(
                "token and the header Authorization in additional_headers must not both be given"
            )
        self._offer(_ANY_URI if callable(self._uri) else self._uri, headers)
        return headers

    def _parse(self, uri: str) -> WebSocketURI:
        parsed, route = parse_uri(uri), self._route
        if not parsed.secure and not self._follow_redirects:
            for name, value in (("ssl", self._ssl), ("server_hostname", route.server_hostname)):
                if value is not None:
                    raise ValueError(f"{name} is given, but uri is not wss:// and redirects are not followed")
        if isinstance(route.proxy, str) and route.towards(parsed).zone is not None:
            raise ValueError("uri has a zone, which a proxy cannot know")
        if self._token is not None and parsed.authorization is not None:
            raise ValueError("token and the user name in uri must not both be given: both set Authorization")
        return parsed

    def _offer(
        self, uri: WebSocketURI, headers: Headers, token: Token | None = None, renewable: bool = False
    ) -> Offer:
        if token is not None:
            headers = Headers([*headers, ("Authorization", f"Bearer {token.value}")])
        elif uri.authorization is not None and "Authorization" not in headers:
            headers = Headers([*headers, ("Authorization", uri.authorization)])
        return offer(uri.host, uri.port, uri.secure, uri.target, headers, self._options, renewable)

    def _redirect(self, uri: WebSocketURI, location: str, left: int) -> WebSocketURI:
        """Return the URI that ``location`` redirects to. Raise ValueError with the reason to refuse it."""
        for name in ("unix_path", "sock"):
            if getattr(self._route, name) is not None:
                raise ValueError(f"the connection uses {name}")
        if not left:
            raise ValueError(f"{MAX_REDIRECTS} redirects have been followed already")
        target = urljoin(f"{uri.origin}{uri.target}", _decoded(location))
        for http, ws in (("http://", "ws://"), ("https://", "wss://")):
            if target.lower().startswith(http):
                target = ws + target[len(http) :]
        parsed = self._parse(target)
        if uri.secure and not parsed.secure:
            raise ValueError("it leads from TLS to plain text")
        for name in ("host", "port", "server_hostname"):
            if getattr(self._route, name) is not None and parsed.host.lower() != uri.host.lower():
                raise ValueError(f"it leads to another host, and the connection uses {name}")
        if self._route.port is not None and parsed.port != uri.port:
            raise ValueError("it leads to another port, and the connection uses port")
        if parsed.username is None and _origin(parsed) == _origin(uri):
            parsed = replace(parsed, username=uri.username, password=uri.password)
        return parsed


class ConnectKeywords(OptionKeywords, total=False):
    """The keyword arguments of :class:`connect`, for functions that pass them on. A test compares the two."""

    ssl: tls.SSLContext | None
    additional_headers: HeadersArgument
    unix_path: str | os.PathLike[str] | None
    proxy: str | Literal[True] | None
    proxy_ssl: tls.SSLContext | None
    server_hostname: str | None
    host: str | None
    port: int | None
    sock: socket.socket | None
    local_addr: tuple[str, int] | None
    family: int
    follow_redirects: bool
    token: TokenArgument | None
    options: Options | None


def _headers(fields: HeaderFields) -> Headers:
    if not isinstance(fields, Mapping | Headers):
        fields = [*fields] if isinstance(fields, Iterable) and not isinstance(fields, str | bytes) else [()]
        if not all(isinstance(field, tuple | list) and len(field) == 2 for field in fields):
            raise TypeError("additional_headers must be a mapping or an iterable of (name, value) pairs")
    return Headers(fields)


def _decoded(location: str) -> str:
    """The value of a Location field, whose bytes may be UTF-8 (RFC 3987), as those of nginx and PHP are."""
    octets = location.encode("latin-1")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return re.sub("[\x80-\xff]", lambda found: f"%{ord(found[0]):02X}", location)


def _origin(uri: WebSocketURI) -> tuple[object, ...]:
    return uri.secure, uri.host.lower(), uri.zone, uri.port
