"""What an application adds to the response that opens a WebSocket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ..text import utf8
from .headers import TOKEN, Headers
from .response import Response

__all__ = ["Accept", "check_fields", "check_subject", "check_until"]

#: Fields that the handshake sets, besides all those that begin with ``sec-websocket-``, and fields of a body.
RESERVED = frozenset(("connection", "content-length", "transfer-encoding", "upgrade"))


def check_fields(headers: Headers) -> None:
    """Raise ValueError if one of ``headers`` is a field of the handshake."""
    for name in headers.names():
        key = name.lower()
        if key in RESERVED or key.startswith("sec-websocket-"):
            raise ValueError(f"header {name} is set by the handshake")


def check_subject(subject: str | None) -> None:
    """Raise if ``subject`` cannot name a user or account."""
    if not isinstance(subject, str | None):
        raise TypeError(f"subject must be a str or None, not {subject!r}")
    if subject == "":
        raise ValueError("subject must not be empty")
    if subject is not None:
        # The JSON of a token may have lone surrogates. Server.revoke() could not send them to other processes.
        utf8(subject, "subject")


def check_until(until: datetime | None) -> None:
    """Raise if ``until`` is not a time, or if its time zone is unknown."""
    if not isinstance(until, datetime | None):
        raise TypeError(f"until must be a datetime or None, not {until!r}")
    if until is not None and until.utcoffset() is None:
        raise ValueError(f"until must have a time zone, such as datetime.now(UTC), but {until!r} has none")


class Accept:
    """The answer of an `accept` function: the connection is accepted, with these additions.

    See `Server.websocket()`.

    Args:
        subprotocol: The subprotocol to select, one of those that the client offers; otherwise the client gets
            500. The option `subprotocols` need not list it. Default: None, the one that the option selects.
        headers: More header fields of the 101 response: a `Headers`, a mapping, or pairs of a name and a value.
        state: Entries for `request.state`, which the handler reads as `ws.request.state`.
        subject: The user or account for which the connection is authorized, as in `WebSocket.authorize()`.
        until: When the authorization ends, as in `WebSocket.authorize()`. Default: None, no limit.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `subprotocol` is not a token, a header is invalid (see `Headers`), or it is a field of the
            handshake itself: Upgrade, Connection, Sec-WebSocket-*, Content-Length or Transfer-Encoding;
            `subject` is empty, or `until` has no time zone.

    Example:
        ```python
        import asyncio

        from endwell import Accept, Response, Server, connect

        server = Server()


        def check(request):
            if request.query.get("token") != "secret":
                return Response.text("wrong token", 401)
            return Accept(headers={"X-Server": "blue"}, state={"user": "ann"})


        @server.websocket("/", accept=check)
        async def greet(ws):
            await ws.send(f"hello, {ws.request.state['user']}")


        async def main():
            async with server.serving(port=0):
                async with connect(f"ws://127.0.0.1:{server.port}/?token=secret") as ws:
                    print(ws.response.headers["X-Server"], await ws.recv())


        asyncio.run(main())
        ```
    """

    __slots__ = ("headers", "state", "subject", "subprotocol", "until")

    def __init__(
        self,
        *,
        subprotocol: str | None = None,
        headers: Headers | Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        state: Mapping[str, Any] | None = None,
        subject: str | None = None,
        until: datetime | None = None,
    ) -> None:
        if not isinstance(subprotocol, str | None):
            raise TypeError(f"subprotocol must be a str or None, not {subprotocol!r}")
        if subprotocol is not None and (not subprotocol or not TOKEN.issuperset(subprotocol)):
            raise ValueError(f"subprotocol {subprotocol!r} is not a token")
        if not isinstance(state, Mapping | None):
            raise TypeError(f"state must be a mapping or None, not {state!r}")
        check_subject(subject)
        check_until(until)
        #: The subprotocol to select; None for the one that the option `subprotocols` selects.
        self.subprotocol = subprotocol
        #: More header fields of the 101 response.
        self.headers: Headers = Headers(() if headers is None else headers)
        #: Entries for `request.state`.
        self.state: dict[str, Any] = dict(state or {})
        #: The user or account for which the connection is authorized; None if it is not known.
        self.subject = subject
        #: When the authorization ends; None for no limit.
        self.until = until
        check_fields(self.headers)

    def set_cookie(self, name: str, value: str = "", **attributes: Any) -> None:
        """Add a Set-Cookie field. The arguments are those of `Response.set_cookie()`."""
        # The Response has these headers, not a copy.
        Response(101, self.headers).set_cookie(name, value, **attributes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Accept) and self.__reduce__()[1] == other.__reduce__()[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return _accept, (self.subprotocol, self.headers, self.state, self.subject, self.until)

    def __repr__(self) -> str:
        return f"<Accept {self.subprotocol!r} {self.headers!r}>"


def _accept(
    subprotocol: str | None,
    headers: Headers,
    state: dict[str, Any],
    subject: str | None,
    until: datetime | None,
) -> Accept:
    return Accept(subprotocol=subprotocol, headers=headers, state=state, subject=subject, until=until)
