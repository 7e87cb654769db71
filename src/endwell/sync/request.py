"""The request of a plain HTTP handler."""

from __future__ import annotations

from typing import Any

from ..http import Body, Query
from ..http import Request as _Request
from ..http.request import imitate

__all__ = ["Request"]


class Request(_Request):
    """The request of a plain HTTP handler. Its body has arrived before the handler is called.

    It is an :class:`endwell.Request` whose :meth:`body`, :meth:`json` and :meth:`form` return their result
    without ``await``.

    Example:
        ```python
        from endwell import Server

        server = Server()

        @server.route("/notes", methods=["POST"])
        def add(request):
            return {"length": len(request.json()["text"])}
        ```
    """

    def __init__(self, original: _Request, octets: bytes, body: Body) -> None:
        super().__init__(
            original.method,
            original.target,
            original.headers,
            original.version,
            original.remote_address,
        )
        imitate(self, original)
        self._octets = octets
        self._body = body

    def body(self) -> bytes:  # type: ignore[override]
        """The body of the request."""
        return self._octets

    def json(self) -> Any:
        """The body, parsed as JSON.

        Raises:
            RequestRefused: The body is not JSON. If the handler does not catch it, the answer is 400.
        """
        return self._body.json(self._octets)

    def form(self) -> Query:  # type: ignore[override]
        """The fields of the body, an ``application/x-www-form-urlencoded`` form.

        Raises:
            RequestRefused: The Content-Type is another one (415), or the form is malformed (400).
        """
        return self._body.form(self._octets)
