"""An HTTP request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote

from .headers import Headers, serialize_head

__all__ = ["NO_PARAMS", "Query", "Request", "challenge_of", "set_challenge"]

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
        return (
            serialize_head(f"{self.method} {self.target} HTTP/{self.version}", self.headers) + self._challenge
        )


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


def _set_once(request: Request, name: str, to: object) -> None:
    if name not in ("params", "_challenge") and hasattr(request, name):
        raise AttributeError(f"attribute {name!r} of 'Request' objects is not writable")
    object.__setattr__(request, name, to)


# In the compiled build, request.pxd makes the attributes read-only, and setting __setattr__ raises TypeError.
with suppress(TypeError):
    Request.__setattr__ = _set_once  # type: ignore[method-assign, assignment]
