"""An HTTP response."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from typing import Any

from ..text import utf8
from .cookies import SameSite, serialize_cookie
from .headers import Headers, serialize_head

__all__ = ["Response", "StreamingResponse"]

#: RFC 9110 §15.
PHRASES: dict[int, str] = {status.value: status.phrase for status in HTTPStatus}


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
        self.headers: Headers = (
            headers if isinstance(headers, Headers) else Headers(() if headers is None else headers)
        )
        self.body: bytes = bytes(body)

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
        return cls(status, fields, utf8(body, "body"))

    @staticmethod
    def stream(
        chunks: AsyncIterable[bytes | str] | Iterable[bytes | str],
        status: int = 200,
        headers: Headers | Mapping[str, str] | None = None,
    ) -> StreamingResponse:
        r"""A response whose body is sent while `chunks` produces it, as fast as the client reads.

        If `chunks` raises, the exception is logged and the connection is aborted, so that the client sees an
        incomplete body. If the client disconnects, `chunks` is closed.

        Args:
            chunks: An async iterable, such as an async generator, of bytes or text (UTF-8). Or a plain
                iterable, whose items are produced in a thread.
            status: The status code.
            headers: More header fields. Default Content-Type: `application/octet-stream`.

        Example:
            ```python
            import asyncio

            from endwell import Response, Server

            server = Server()


            @server.get("/events")
            async def events(request):
                async def ticks():
                    while True:
                        yield "data: tick\n\n"
                        await asyncio.sleep(1)

                return Response.stream(ticks(), headers={"Content-Type": "text/event-stream"})
            ```
        """
        return StreamingResponse(chunks, status, headers)

    def set_cookie(  # size: the attributes of a cookie are one list
        self,
        name: str,
        value: str = "",
        *,
        max_age: int | None = None,
        expires: datetime | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: SameSite | None = "lax",
        partitioned: bool = False,
    ) -> None:
        """Add a Set-Cookie field (RFC 6265). The names and defaults are those of Starlette.

        Args:
            name: The name of the cookie.
            value: Its value.
            max_age: Seconds until the cookie expires; 0 deletes it. None: it ends with the browser's session.
            expires: When the cookie expires, with a time zone.
            path: The path below which the browser sends the cookie. Default: `"/"`.
            domain: The domain to which the browser sends it, with subdomains. None: only this host.
            secure: Whether the browser sends the cookie over TLS only.
            httponly: Whether scripts cannot read the cookie.
            samesite: `"lax"` (default), `"strict"`, `"none"`, or None for no attribute.
            partitioned: Whether the cookie is separate for each top-level site.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: `name` is not a token, `value` has a character that a cookie cannot contain, or an
                attribute is invalid.
        """
        attributes = {
            "Expires": expires,
            "Max-Age": max_age,
            "Domain": domain,
            "Path": path,
            "SameSite": samesite,
            "Secure": secure,
            "HttpOnly": httponly,
            "Partitioned": partitioned,
        }
        self.headers.add("Set-Cookie", serialize_cookie(name, value, attributes))

    def delete_cookie(self, name: str, *, path: str | None = "/", domain: str | None = None) -> None:
        """Add a Set-Cookie field that deletes a cookie; `path` and `domain` must be those of the cookie."""
        self.set_cookie(name, max_age=0, path=path, domain=domain)

    def serialize(self) -> bytes:
        """The response as bytes."""
        return serialize_head(f"HTTP/1.1 {self.status} {self.reason}", self.headers) + self.body


class StreamingResponse(Response):
    """What :meth:`Response.stream` returns. ``body`` is empty."""

    def __init__(
        self,
        chunks: AsyncIterable[bytes | str] | Iterable[bytes | str],
        status: int = 200,
        headers: Headers | Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(chunks, str | bytes) or not isinstance(chunks, AsyncIterable | Iterable):
            raise TypeError(f"chunks must be an async or plain iterable, not {type(chunks).__name__}")
        super().__init__(status, Headers(headers or ()))
        if "Content-Type" not in self.headers:
            self.headers.add("Content-Type", "application/octet-stream")
        self.chunks = chunks

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a streaming response cannot be pickled")


def _set_once(response: Response, name: str, to: object) -> None:
    if hasattr(response, name):
        raise AttributeError(f"attribute {name!r} of 'Response' objects is not writable")
    object.__setattr__(response, name, to)


# In the compiled build, response.pxd makes the attributes read-only, and setting __setattr__ raises TypeError.
with suppress(TypeError):
    Response.__setattr__ = _set_once  # type: ignore[method-assign, assignment]
