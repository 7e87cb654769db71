"""The HTTP values of an opening handshake: headers, request, response."""

# size: three public classes; most lines document them
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote

__all__ = [
    "Headers",
    "Query",
    "Request",
    "Response",
    "challenge_of",
    "checked_headers",
    "headers_of_lines",
    "pack",
    "set_challenge",
]

#: The path parameters of a request without any; shared, because most requests have none.
NO_PARAMS: Mapping[str, str] = MappingProxyType({})

#: RFC 9110 §15.
PHRASES: dict[int, str] = {status.value: status.phrase for status in HTTPStatus}

#: RFC 9110 §5.6.2: the characters of a token, such as a header's name.
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

#: Fields whose values repr() hides, because a repr() is often logged (RFC 9110 §11.6, RFC 6265 §8.2).
CREDENTIALS = frozenset(("authorization", "cookie", "proxy-authorization", "set-cookie"))
REDACTED = "[redacted]"


class Headers:
    """HTTP header fields, in order. Names are case-insensitive (RFC 9110 §5.1) and can repeat.

    `headers["Name"]` is the first value. `headers["Name"] = value` is `set()`. `del headers["Name"]` removes
    all fields of that name. Reading or deleting a missing field raises KeyError. Iteration gives pairs of a
    name and a value. `repr()` hides the values of Authorization, Proxy-Authorization, Cookie and Set-Cookie.

    Args:
        fields: A mapping, or pairs of a name and a value.

    Raises:
        TypeError: A name or a value is not a str.
        ValueError: A name is not a token, or a value has CR, LF, NUL or a character outside latin-1.

    Example:
        ```python
        from endwell import Headers

        headers = Headers({"Content-Type": "text/plain"})
        headers.add("Set-Cookie", "a=1")
        headers.add("Set-Cookie", "b=2")
        print(headers["content-type"], headers.get_all("set-cookie"), headers.get("ETag"))
        ```
    """

    __slots__ = ("_fields", "_lines")

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        #: The lines of a checked head as received; None if the fields were set or changed here.
        self._lines: str | None = None
        #: The parsed fields; None until they are first read.
        self._fields: list[tuple[str, str]] | None = []
        for name, value in fields.items() if isinstance(fields, Mapping) else fields:
            self.add(name, value)

    def names(self) -> list[str]:
        """The name of each field, in order. A repeated field repeats its name."""
        return [name for name, _ in self._unpacked()]

    def _unpacked(self) -> list[tuple[str, str]]:
        fields = self._fields
        if fields is None:
            fields = []
            for line in self._lines.split("\r\n") if self._lines else ():
                name, colon, value = line.partition(":")
                if not colon:
                    raise ValueError("a line of the head has no colon")
                fields.append((name, value.strip(" \t")))
            self._fields = fields
        return fields

    def add(self, name: str, value: str) -> None:
        """Append a field.

        Args:
            name: The name of the field.
            value: Its value.

        Raises:
            TypeError: `name` or `value` is not a str.
            ValueError: `name` is not a token, or `value` has CR, LF, NUL or a character outside latin-1.
        """
        _check(name, value)
        self._unpacked().append((name, value))
        self._lines = None

    def set(self, name: str, value: str) -> None:
        """Replace all fields of a name with one field, at the place of the first or at the end.

        Args:
            name: The name of the field.
            value: Its value.

        Raises:
            TypeError: `name` or `value` is not a str.
            ValueError: `name` is not a token, or `value` has CR, LF, NUL or a character outside latin-1.
        """
        _check(name, value)
        key = name.lower()
        fields: list[tuple[str, str]] = []
        found = False
        for field in self._unpacked():
            if field[0].lower() != key:
                fields.append(field)
            elif not found:
                found = True
                fields.append((name, value))
        if not found:
            fields.append((name, value))
        self._fields = fields
        self._lines = None

    def remove(self, name: str) -> None:
        """Remove all fields of a name. It is no error if there are none.

        Args:
            name: The name of the fields.
        """
        key = name.lower()
        self._fields = [field for field in self._unpacked() if field[0].lower() != key]
        self._lines = None

    def get_all(self, name: str) -> list[str]:
        """All values of a field, in order.

        Args:
            name: The name of the field.

        Returns:
            The values; an empty list if there is no such field.
        """
        name = name.lower()
        size = len(name)
        return [value for key, value in self._unpacked() if len(key) == size and key.lower() == name]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of a field; :meth:`get_all` gives all of them.

        Args:
            name: The name of the field, in any case.
            default: The result if there is no such field. Default: None.
        """
        name = name.lower()
        size = len(name)
        for key, value in self._unpacked():
            if len(key) == size and key.lower() == name:
                return value
        return default

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self.remove(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._unpacked())

    def __len__(self) -> int:
        return len(self._unpacked())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._unpacked() == other._unpacked()

    def __repr__(self) -> str:
        shown = [(name, REDACTED if name.lower() in CREDENTIALS else value) for name, value in self]
        return f"Headers({shown!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the pickle format of Cython, which a pure Python build cannot read.
        return _headers, (self._lines, None if self._fields is None else self._fields.copy())

    def list_of(self, name: str) -> list[str]:
        """The elements of a comma-separated field (RFC 9110 §5.6.1), over all fields of that name.

        Quoted strings are not recognized: a comma inside quotes separates elements, too.

        Args:
            name: The name of the field.
        """
        parts = [part.strip(" \t") for line in self.get_all(name) for part in line.split(",")]
        return [part for part in parts if part]


def checked_headers(fields: list[tuple[str, str]]) -> Headers:
    """Headers from fields whose names and values the caller has checked."""
    headers = Headers()
    headers._fields = fields
    return headers


def headers_of_lines(lines: str) -> Headers:
    """Headers from the lines of a head. The caller has checked the names and values.

    The lines are split at the first access, which raises ValueError for a line without a colon.
    """
    headers = Headers()
    headers._lines = lines
    headers._fields = None
    return headers


def pack(headers: Headers) -> None:
    """Drop the parsed fields and keep the lines, if there are any: they take a third of the memory."""
    if headers._lines is not None:
        headers._fields = None


def _headers(lines: str | None, fields: list[tuple[str, str]] | None) -> Headers:
    headers = Headers()
    headers._lines = lines
    headers._fields = fields
    return headers


def _check(name: str, value: str) -> None:
    """Check a field; raises as `Headers.add` does."""
    if not isinstance(name, str):
        raise TypeError(f"header name must be a str, not {name!r}")
    if not isinstance(value, str):
        # The message does not show the value, which may be a credential.
        raise TypeError(f"value of header {name} must be a str, not {type(value).__name__}")
    if not name or not TOKEN.issuperset(name):
        raise ValueError(f"header name {name!r} is not a token")
    # RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are
    # invalid and dangerous".
    if "\r" in value or "\n" in value or "\0" in value:
        raise ValueError(f"value of header {name} contains CR, LF or NUL")
    # RFC 9110 §5.5: "Field values are usually constrained to the range of
    # US-ASCII". Other octets are decoded and encoded as latin-1.
    if not value.isascii() and max(value) > "\xff":
        raise ValueError(f"value of header {name} has a character outside latin-1")


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

    The attributes have the names of the arguments. They are read-only, except `params`. `headers` can
    be changed in place. `repr()` hides the query and credentials.

    Args:
        method: The method, such as `"GET"`.
        target: The request target as on the request line: path and query, percent-encoded.
        headers: The header fields.
        version: The HTTP version.
        remote_address: The peer's address, as the `socket` module represents it.
        secure: Whether the request came over TLS.

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
        "_challenge",
        "headers",
        "method",
        "params",
        "remote_address",
        "secure",
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
        #: Whether the request came over TLS.
        self.secure = secure
        #: The path parameters of the route; empty until the route is known.
        self.params: Mapping[str, str] = NO_PARAMS
        # The 8 bytes after the head of a hixie-76 request; empty for every other request.
        self._challenge = b""

    def __reduce__(self) -> tuple[Any, ...]:
        head = (self.method, self.target, self.headers, self.version, self.remote_address, self.secure)
        return _request, (head, dict(self.params), self._challenge)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and all(
            getattr(self, name) == getattr(other, name) for name in Request.__slots__
        )

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

    def serialize(self) -> bytes:
        """The request as bytes.

        Raises:
            ValueError: The target is empty, or has a space or a character outside printable ASCII.
        """
        # RFC 9112 §3.2: "No whitespace is allowed in the request-target."
        if not self.target or not all("!" <= char <= "~" for char in self.target):
            raise ValueError(f"target {self.target!r} is not printable ASCII without spaces")
        return _head(f"{self.method} {self.target} HTTP/{self.version}", self.headers) + self._challenge


def _request(head: tuple[Any, ...], params: dict[str, str], body: bytes) -> Request:
    request = Request(*head)
    if params:
        request.params = params
    request._challenge = body
    return request


def challenge_of(request: Request) -> bytes:
    """The 8 bytes after the head of a hixie-76 request; empty for every other request."""
    return request._challenge


def set_challenge(request: Request, octets: bytes) -> None:
    """Set the 8 bytes after the head of a hixie-76 request."""
    request._challenge = octets


class Response:
    """An HTTP response.

    The attributes have the names of the arguments. They are read-only. `headers` can be changed in place.

    Args:
        status: The status code.
        headers: The header fields: a `Headers`, a mapping, or pairs of a name and a value.
        body: The body. `Response.text()` and `Response.html()` take a str.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A header is invalid, see `Headers`.

    Example:
        ```python
        import asyncio

        from endwell import HandshakeRejected, Response, Server, connect

        server = Server()


        @server.get("/health")
        async def health(request):
            return Response.text("ok")


        @server.process_request
        async def authenticate(request):
            if request.path != "/health" and "Authorization" not in request.headers:
                return Response(401, {"WWW-Authenticate": "Bearer"})


        async def main():
            async with server.serving(port=0):
                try:
                    async with connect(f"ws://127.0.0.1:{server.port}/"):
                        pass
                except HandshakeRejected as exc:
                    print(exc.response.status, exc.response.headers["WWW-Authenticate"])


        asyncio.run(main())
        ```
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: Headers | Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        body: bytes | bytearray | memoryview = b"",
    ) -> None:
        if not isinstance(status, int):
            raise TypeError(f"status must be an int, not {status!r}")
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(
                f"body must be bytes-like, not {type(body).__name__}; Response.text() takes a str"
            )
        self.status = status
        # A Headers object is not copied: most responses are sent right after they are made.
        self.headers = (
            headers if isinstance(headers, Headers) else Headers(() if headers is None else headers)
        )
        self.body = bytes(body)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.headers, self.body)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Response) and (self.status, self.headers, self.body) == (
            other.status,
            other.headers,
            other.body,
        )

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.headers!r}, {len(self.body)} bytes>"

    @property
    def reason(self) -> str:
        """The standard reason phrase of the status (RFC 9110 §15); `""` for an unknown status."""
        return PHRASES.get(self.status, "")

    @classmethod
    def text(
        cls, body: str, status: int = 200, headers: Headers | Mapping[str, str] | None = None
    ) -> Response:
        """A response with a plain text body, encoded as UTF-8.

        Args:
            body: The text.
            status: The status code.
            headers: More header fields. A Content-Type here replaces `text/plain; charset=utf-8`.
        """
        return cls._typed("text/plain; charset=utf-8", body, status, headers)

    @classmethod
    def html(
        cls, body: str, status: int = 200, headers: Headers | Mapping[str, str] | None = None
    ) -> Response:
        """A response with an HTML body, encoded as UTF-8.

        Args:
            body: The page.
            status: The status code.
            headers: More header fields. A Content-Type here replaces `text/html; charset=utf-8`.
        """
        return cls._typed("text/html; charset=utf-8", body, status, headers)

    @classmethod
    def redirect(cls, location: str, status: int = 302) -> Response:
        """A redirect.

        Args:
            location: The URI of the Location field.
            status: The status code: 301, 302, 303, 307 or 308.
        """
        return cls._typed(
            "text/plain; charset=utf-8", f"{location}\n", status, Headers({"Location": location})
        )

    @classmethod
    def _typed(
        cls, content_type: str, body: str, status: int, headers: Headers | Mapping[str, str] | None
    ) -> Response:
        fields = Headers(headers or ())
        if "Content-Type" not in fields:
            fields.add("Content-Type", content_type)
        return cls(status, fields, body.encode())

    def serialize(self) -> bytes:
        """The response as bytes."""
        return _head(f"HTTP/1.1 {self.status} {self.reason}", self.headers) + self.body


def _head(first_line: str, headers: Headers) -> bytes:
    lines = headers._lines
    if lines is None:
        lines = "\r\n".join([f"{name}: {value}" for name, value in headers])
    head = f"{first_line}\r\n{lines}\r\n\r\n" if lines else f"{first_line}\r\n\r\n"
    return head.encode("latin-1")


def _set_once(value: Request | Response, name: str, to: object) -> None:
    if not (isinstance(value, Request) and name in ("params", "_challenge")) and hasattr(value, name):
        raise AttributeError(f"attribute {name!r} of {type(value).__name__!r} objects is not writable")
    object.__setattr__(value, name, to)


# In the compiled build, http.pxd makes the attributes read-only, and setting __setattr__ raises TypeError.
with suppress(TypeError):
    for _class in (Request, Response):
        _class.__setattr__ = _set_once  # type: ignore[assignment]
