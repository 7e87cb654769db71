"""The page with the metrics as an ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from ..http import Headers, Response
from ..metrics.page import respond
from ..metrics.table import Block

__all__ = ["MetricsPage"]


class MetricsPage:
    """An ASGI application that shows the blocks that ``count()`` returns.

    An object and no function: Starlette takes a function for an endpoint, and calls it with a request.
    """

    def __init__(self, allow: Sequence[str] | None, count: Callable[[], Iterable[Block]]) -> None:
        self._allow = allow
        self._count = count

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Answer a request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        response = self._response(scope)
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers
        ]
        length = str(len(response.body)).encode()
        start = {
            "type": "http.response.start",
            "status": response.status,
            "headers": [*headers, (b"content-length", length)],
        }
        await send(start)
        await send({"type": "http.response.body", "body": response.body})

    def _response(self, scope: dict[str, Any]) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return Response(405, {"Allow": "GET, HEAD"})
        headers = Headers(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        )
        client = scope.get("client")
        # The address is missing for a Unix socket.
        return respond(None if client is None else tuple(client), headers, self._allow, self._count)
