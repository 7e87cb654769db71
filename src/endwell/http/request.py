"""An HTTP request."""
# size: half of it is documentation.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

from .bearer import FIELD, MARK, authorization_bearer, split_offer
from .cookies import parse_cookies
from .headers import Headers, copy_of, replace_list, serialize_head
from .tls import TLSInfo, tls_info

__all__ = [
    "NO_PARAMS",
    "Body",
    "Query",
    "Request",
    "challenge_of",
    "forward",
    "offers_bearer",
    "renewed",
    "set_bearer",
    "set_body",
    "set_challenge",
    "set_link",
    "take_bearer",
]

#: The path parameters of a request without any; shared, because most requests have none.
NO_PARAMS: Mapping[str, str] = MappingProxyType({})


class Query(dict[str, str]):
    """The parameters of a query string.

    It is a dict with the last value of each parameter. `get_all()` gives all values of a repeated parameter.

    Args:
        pairs: Pairs of a name and a value.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        #: All pairs of a name and a value, in order.
        self.pairs = list(pairs)
        super().__init__(self.pairs)

    def get_all(self, name: str) -> list[str]:
        """All values of a parameter, in order.

        Args:
            name: The name of the parameter.

        Returns:
            The values; an empty list if there is no such parameter.
        """
        return [value for key, value in self.pairs if key == name]


class Request:
    """The head of an HTTP request.

    The attributes have the names of the arguments. They are read-only, except `params` and `route`. `headers` can
    be changed in place. `repr()` hides the query and credentials.

    Args:
        method: The method, such as `"GET"`.
        target: The request target as on the request line: path and query, percent-encoded.
        headers: The header fields.
        version: The HTTP version.
        remote_address: The peer's address, as the `socket` module represents it. Behind a proxy of the option
            `proxy_headers` or `proxy_protocol`, it is the client's; the port is 0 if the proxy does not say it.
        secure: Whether the request came over TLS. Behind a proxy of `proxy_headers`: over TLS to the proxy.

    Example:
        ```python
        import asyncio

        from endwell import Response, Server, connect

        server = Server()


        @server.process_request
        def check(request):
            if request.query.get("token") != "secret":
                return Response.text("wrong token", 401)


        @server.websocket("/rooms/{room}")
        async def room(ws, room):
            await ws.send(f"{ws.request.path} {ws.request.params['room']}")


        async def main():
            async with server.serving(port=0):
                async with connect(f"ws://127.0.0.1:{server.port}/rooms/a?token=secret") as ws:
                    print(await ws.recv())


        asyncio.run(main())
        ```
    """

    __slots__ = (
        "_link",
        "_rare",
        "headers",
        "method",
        "params",
        "remote_address",
        "route",
        "target",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: Headers,
        version: str = "1.1",
        remote_address: object = None,
        secure: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.version = version
        #: The peer's address, as the `socket` module represents it: ``(host, port, ...)``; ``""`` on a Unix socket.
        self.remote_address = remote_address
        #: The path parameters of the route; empty until the route is known.
        self.params: Mapping[str, str] = NO_PARAMS
        #: The pattern of the route, such as ``"/rooms/{room}"``, which is suitable as the label of a metric; that of
        #: a mounted application is its prefix and ``"/{path:path}"``. None until the route is known.
        self.route: str | None = None
        # None if the request did not come over TLS. Else the ssl.SSLObject, or True if it is unknown.
        self._link: object = secure or None
        # What few requests have; None if this one has none of it.
        self._rare: _Rare | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        head = (self.method, self.target, self.headers, self.version, self.remote_address, self.secure)
        rare = self._rare
        bearer = None if rare is None else rare.bearer
        return _request, (head, dict(self.params), challenge_of(self), self.route, bearer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self.__reduce__()[1] == other.__reduce__()[1]

    def __repr__(self) -> str:
        query = "?..." if self.query_string else ""
        return f"<Request {self.method} {self.raw_path + query!r} {self.headers!r}>"

    @property
    def raw_path(self) -> str:
        """The path of the target, still percent-encoded."""
        # urlsplit() would read the path "//a/b" as the path "/b" on the host "a".
        return self.target.partition("?")[0]

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return unquote(self.raw_path)

    @property
    def query_string(self) -> str:
        """The query of the target, still percent-encoded; `""` if there is none."""
        return self.target.partition("?")[2]

    @property
    def query(self) -> Query:
        """The decoded parameters of the query: a dict with the last value of each.

        `query.get_all(name)` gives all values of a repeated parameter.
        """
        return Query(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def secure(self) -> bool:
        """Whether the request came over TLS. Behind a proxy of `proxy_headers`: over TLS to the proxy."""
        return self._link is not None

    @property
    def tls(self) -> TLSInfo | None:
        """The TLS session, with the certificate of the peer; None without TLS.

        It is that of the connection to this server, even behind a proxy.
        """
        if self._link is None and self._rare is None:
            return None
        rare = _rare_of(self)
        if rare.tls is None:
            ssl_object = rare.link or self._link
            rare.tls = None if ssl_object is None or ssl_object is True else tls_info(ssl_object)
        return rare.tls

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies of the request, by name. Of a repeated name, it has the first value."""
        return parse_cookies(self.headers.get_all("Cookie"))

    @property
    def bearer(self) -> str | None:
        """The token of the client; None if it has sent none.

        It comes from `Authorization: Bearer` (RFC 6750), or from the subprotocols that `endwell.js` offers with
        its option `token`. Of a `WebSocket.request`, it is the last token that the `accept` function of the
        route has accepted.
        """
        rare = self._rare
        if rare is not None and rare.bearer is not None:
            return rare.bearer
        return authorization_bearer(self.headers.get_all("Authorization"))

    @property
    def state(self) -> dict[str, Any]:
        """A dict for what the application knows about the request, such as its user.

        A `process_request` hook or an `accept` function fills it, and the handler reads it as
        `ws.request.state`. Nothing of it comes from the client.
        """
        rare = _rare_of(self)
        if rare.state is None:
            rare.state = {}
        return rare.state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        if not isinstance(state, dict):
            raise TypeError(f"state must be a dict, not {state!r}")
        _rare_of(self).state = state

    async def body(self) -> bytes:
        """The body of the request. It can be read several times.

        Raises:
            RequestRefused: The body is larger than the option `max_body` (413), is malformed or incomplete
                (400), or does not arrive within `body_timeout` (408). If the handler does not catch it, it is
                the answer.
        """
        source = _rare_of(self).body
        return b"" if source is None else await source.read()

    async def json(self) -> Any:
        """The body, parsed as JSON.

        Raises:
            RequestRefused: The body is not JSON (400); and as `body()`.
        """
        octets = await self.body()
        return _source(self).json(octets)

    async def form(self) -> Query:
        """The fields of the body, an `application/x-www-form-urlencoded` form.

        Raises:
            RequestRefused: The Content-Type is another one (415), or the form is malformed (400); and as
                `body()`.
        """
        octets = await self.body()
        return _source(self).form(octets)

    def serialize(self) -> bytes:
        """The request as bytes.

        Raises:
            ValueError: The target is empty, or has a space or a character outside printable ASCII.
        """
        # RFC 9112 §3.2: "No whitespace is allowed in the request-target."
        if not self.target or not all("!" <= char <= "~" for char in self.target):
            raise ValueError(f"target {self.target!r} is not printable ASCII without spaces")
        first_line = f"{self.method} {self.target} HTTP/{self.version}"
        return serialize_head(first_line, self.headers) + challenge_of(self)


def _request(
    head: tuple[Any, ...], params: dict[str, str], body: bytes, route: str | None, bearer: str | None = None
) -> Request:
    request = Request(*head)
    request.route = route
    if params:
        request.params = params
    if body:
        set_challenge(request, body)
    if bearer is not None:
        set_bearer(request, bearer)
    return request


class _Rare:
    """What few requests have."""

    __slots__ = ("bearer", "body", "challenge", "link", "offers_bearer", "state", "tls")

    def __init__(self) -> None:
        self.challenge = b""
        self.state: dict[str, Any] | None = None
        self.tls: TLSInfo | None = None
        # The ssl.SSLObject of the connection from a proxy, if the client speaks plain HTTP to the proxy.
        self.link: object = None
        self.body: Body | None = None
        # A token that did not come in Authorization; and whether the client has offered the subprotocol MARK.
        self.bearer: str | None = None
        self.offers_bearer = False


class Body(Protocol):
    """The body of a request, as a server reads it. Each method raises a subclass of ``RequestRefused``."""

    async def read(self) -> bytes:
        """The whole body."""

    def json(self, octets: bytes) -> Any:
        """``octets`` as JSON."""

    def form(self, octets: bytes) -> Query:
        """``octets`` as a form."""


def _rare_of(request: Request) -> _Rare:
    if request._rare is None:
        request._rare = _Rare()
    return request._rare


def _source(request: Request) -> Body:
    source = _rare_of(request).body
    if source is None:
        raise ValueError("the request has no body")
    return source


def challenge_of(request: Request) -> bytes:
    """The 8 bytes after the head of a hixie-76 request; empty for every other request."""
    return b"" if request._rare is None else request._rare.challenge


def set_challenge(request: Request, octets: bytes) -> None:
    """Set the 8 bytes after the head of a hixie-76 request."""
    _rare_of(request).challenge = octets


def set_body(request: Request, body: Body) -> None:
    """Set the source of :meth:`Request.body`."""
    _rare_of(request).body = body


def set_link(request: Request, link: object) -> None:
    """Note that ``request`` came over TLS. ``link`` is the ``ssl.SSLObject`` of the connection, or True."""
    request._link = link


def take_bearer(request: Request) -> None:
    """Remove the subprotocols of a bearer token from the fields; the token becomes :attr:`Request.bearer`.

    Raises ValueError for a malformed pair; the message does not have the token.
    """
    headers = request.headers
    names = headers.list_of(FIELD)
    if MARK not in names:
        return
    rest, token = split_offer(names)
    # RFC 6750 §2: "Clients MUST NOT use more than one method to transmit the token in each request."
    if token is not None and request.bearer is not None:
        raise ValueError(f"the request has a token both in Authorization and in the subprotocol {MARK}")
    replace_list(headers, FIELD, rest)
    rare = _rare_of(request)
    rare.bearer, rare.offers_bearer = token, True


def offers_bearer(request: Request) -> bool:
    """Whether the client has offered the subprotocol of bearer tokens."""
    return request._rare is not None and request._rare.offers_bearer


def set_bearer(request: Request, token: str) -> None:
    """Set :attr:`Request.bearer`."""
    _rare_of(request).bearer = token


def renewed(request: Request, token: str) -> Request:
    """The request with another token, and with a copy of its ``state``."""
    headers = copy_of(request.headers)
    if authorization_bearer(headers.get_all("Authorization")) is not None:
        headers.set("Authorization", f"Bearer {token}")
    again = Request(request.method, request.target, headers, request.version, request.remote_address)
    again.params, again.route, again._link = request.params, request.route, request._link
    rare = _rare_of(again)
    rare.link, rare.state, rare.bearer = _rare_of(request).link, request.state.copy(), token
    return again


def forward(request: Request, remote_address: object, secure: bool, headers: Headers) -> Request:
    """The request as the client has sent it to a proxy, from the one that the proxy has sent."""
    original = Request(request.method, request.target, headers, request.version, remote_address, secure)
    if request._link is not None:
        _rare_of(original).link = request._link
    if request._rare is not None:
        rare = _rare_of(original)
        rare.challenge = request._rare.challenge
        rare.bearer, rare.offers_bearer = request._rare.bearer, request._rare.offers_bearer
    return original


def imitate(request: Request, original: Request) -> None:
    """Give ``request`` all that its constructor does not take."""
    request.params = original.params
    request.route = original.route
    request._link = original._link
    request._rare = _rare_of(original)


_WRITABLE = frozenset(("params", "route", "state", "_link", "_rare"))


def _set_once(request: Request, name: str, to: object) -> None:
    if name not in _WRITABLE and hasattr(request, name):
        raise AttributeError(f"attribute {name!r} of 'Request' objects is not writable")
    object.__setattr__(request, name, to)


# In the compiled build, request.pxd makes the attributes read-only, and setting __setattr__ raises TypeError.
with suppress(TypeError):
    Request.__setattr__ = _set_once  # type: ignore[method-assign, assignment]
