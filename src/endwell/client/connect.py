"""The asyncio client: ``connect``."""

from __future__ import annotations

import os
import ssl as tls
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from types import TracebackType
from typing import Unpack
from urllib.parse import urljoin

from ..aio.dial import dial
from ..aio.websocket import WebSocket, close_for
from ..codes import CloseCode
from ..ending import Cause
from ..errors import HandshakeRejected
from ..http import Headers
from ..options import OptionKeywords, Options, check_keywords
from ..protocol.handshake import Offer
from ..protocol.opening import offer
from ..protocol.uri import WebSocketURI, parse_uri
from ..wire.authority import join_authority

__all__ = ["ConnectKeywords", "connect"]

#: Redirects followed before the last one is told as a refusal. Precedent: websockets.
MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Characters of a Location that an error shows.
MAX_LOCATION = 80
#: Never sent again to another origin (Tomcat's client did: CVE-2026-42498).
OWN_TO_ORIGIN = frozenset({"authorization", "cookie", "host", "proxy-authorization"})


class connect:
    """Open a connection: ``async with connect(uri) as ws:`` or ``ws = await connect(uri)``.

    - ``uri``: ``ws://`` or ``wss://``; a user name and password in it become Basic
      authorization.
    - ``ssl``: a context for ``wss://``; by default the system's trust store decides.
    - ``additional_headers``: sent with the request; those that carry credentials are
      not sent again when a redirect leads to another origin.
    - ``unix_path``: connect to this Unix socket; ``uri`` then only makes the request.
    - ``options``: see :class:`~endwell.Options`; each of its fields can also be given
      as a keyword.

    Leaving the ``async with`` block closes with 1000 and waits for the end.

    Raises ValueError for a malformed ``uri`` or header, TypeError for an argument of
    another type or name; and when it connects, :exc:`HandshakeRejected` for an HTTP refusal
    (with its ``response``) and :exc:`HandshakeError` for anything else.
    """

    def __init__(
        self,
        uri: str,
        *,
        ssl: tls.SSLContext | None = None,
        additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        unix_path: str | os.PathLike[str] | None = None,
        options: Options | None = None,
        **keywords: Unpack[OptionKeywords],
    ) -> None:
        self._uri = parse_uri(uri)
        if ssl is not None and not self._uri.secure:
            raise ValueError("ssl is given, but uri is not wss://")
        if not isinstance(ssl, tls.SSLContext | None):
            raise TypeError(f"ssl must be an ssl.SSLContext or None, not {ssl!r}")
        if not isinstance(options, Options | None):
            raise TypeError(f"options must be an Options or None, not {options!r}")
        if not isinstance(unix_path, str | os.PathLike | None):
            raise TypeError(f"unix_path must be a path or None, not {unix_path!r}")
        self._ssl = ssl
        self._headers = _headers(additional_headers)
        self._unix_path = unix_path
        check_keywords("connect", keywords, ConnectKeywords.__optional_keys__)
        self._options = (options or Options()).replace(**keywords)
        self._offer(self._uri, self._headers)  # an application's mistake raises here, not when it connects
        self._ws: WebSocket | None = None
        # Where it is opened: for the warning about one that is not closed.
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
            # Cancelled or interrupted: the peer is told so.
            await close_for(self._ws, Cause.CANCELLED, CloseCode.GOING_AWAY)
        else:
            await self._ws.close()

    async def _open(self) -> WebSocket:
        ws = await self._reach()
        ws._created_at = self._created_at
        return ws

    async def _reach(self) -> WebSocket:
        uri, headers, began = self._uri, self._headers, time.monotonic()
        for left in range(MAX_REDIRECTS, -1, -1):
            try:
                return await dial(uri, self._offer(uri, headers), self._ssl, self._unix_path, began)
            except HandshakeRejected as refusal:
                location = refusal.response.headers.get("Location")
                if refusal.response.status not in REDIRECTS or location is None:
                    raise
                try:
                    target = self._redirect(uri, location, left)
                except ValueError as error:
                    shown = location.partition("?")[0][:MAX_LOCATION]
                    refusal.args = (f"{refusal}; its redirect to {shown!r} is not followed: {error}",)
                    raise refusal from None
                # As far as our own side stood still, the time was not the server's.
                began += refusal.ending.stalled
            if _origin(target) != _origin(uri):
                headers = Headers(field for field in headers if field[0].lower() not in OWN_TO_ORIGIN)
            uri = target
        raise AssertionError("the last redirect is not followed")

    def _offer(self, uri: WebSocketURI, headers: Headers) -> Offer:
        if uri.authorization is not None and "Authorization" not in headers:
            headers = Headers([*headers, ("Authorization", uri.authorization)])
        return offer(uri.host, uri.port, uri.secure, uri.target, headers, self._options)

    def _redirect(self, uri: WebSocketURI, location: str, left: int) -> WebSocketURI:
        """Where the server sends us. Raises ValueError, which says why that is not acceptable."""
        if self._unix_path is not None:
            raise ValueError("unix_path says where to connect")
        if not left:
            raise ValueError(f"it is the redirect after {MAX_REDIRECTS} others")
        target = urljoin(_text(uri), location)
        for http, ws in (("http://", "ws://"), ("https://", "wss://")):
            if target.lower().startswith(http):
                target = ws + target[len(http) :]
        parsed = parse_uri(target)
        if uri.secure and not parsed.secure:
            raise ValueError("it leads from TLS to plain text, which everybody could read")
        return parsed


class ConnectKeywords(OptionKeywords, total=False):
    """The keywords of :class:`connect`, for whoever passes them on (a test keeps the two equal)."""

    ssl: tls.SSLContext | None
    additional_headers: Mapping[str, str] | Iterable[tuple[str, str]]
    unix_path: str | os.PathLike[str] | None
    options: Options | None


def _headers(fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> Headers:
    if not isinstance(fields, Mapping | Headers):
        fields = [*fields] if isinstance(fields, Iterable) and not isinstance(fields, str | bytes) else [()]
        if not all(isinstance(field, tuple | list) and len(field) == 2 for field in fields):
            raise TypeError("additional_headers must be a mapping or pairs of a name and a value")
    return Headers(fields)


def _origin(uri: WebSocketURI) -> tuple[bool, str, int]:
    return uri.secure, uri.host.lower(), uri.port


def _text(uri: WebSocketURI) -> str:
    """``uri`` without its userinfo."""
    return f"{'wss' if uri.secure else 'ws'}://{join_authority(uri.host, uri.port)}{uri.target}"
