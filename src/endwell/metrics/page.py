"""The response with the metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..http import Headers, Response
from ..matching import is_address_among
from .exposition import media_type, render
from .table import Block

__all__ = ["THIS_MACHINE", "respond"]

#: Who gets the page unless the application says otherwise.
THIS_MACHINE = ("127.0.0.0/8", "::1", "unix")


def respond(
    peer: object, headers: Headers, allow: Sequence[str] | None, count: Callable[[], Iterable[Block]]
) -> Response:
    """The page of the blocks that ``count()`` returns, for ``peer``, an address of the socket module.

    ``allow``: the addresses and networks that get it; None: all.
    """
    if allow is not None and not is_address_among(peer, allow):
        return Response(403)
    kind = media_type(headers.list_of("Accept"))
    # The pattern of a route may contain surrogates, which UTF-8 does not have.
    body = render(count(), kind).encode(errors="replace")
    return Response(200, {"Content-Type": kind, "Cache-Control": "no-store"}, body)
