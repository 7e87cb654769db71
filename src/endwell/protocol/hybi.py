"""The openings of hybi-07 and -08, which differ from that of RFC 6455 in two fields.

Draft-ietf-hybi-thewebsocketprotocol-08 §5.1: the version is 8, and the origin of a page
stands in Sec-WebSocket-Origin. So both are translated.
"""

from __future__ import annotations

from dataclasses import replace

from ..http import Headers, Request
from ..options import Options
from . import handshake
from .handshake import Accepted, Offer

__all__ = ["NUMBERS", "accept", "offer"]

#: What stands in Sec-WebSocket-Version.
NUMBERS = {"8": "hybi-08", "7": "hybi-07"}


def accept(request: Request, options: Options) -> Accepted:
    """Accept ``request``, as :func:`endwell.protocol.handshake.accept` does, but without extensions."""
    fields = [("Sec-WebSocket-Version", "13")]
    for name, value in request.headers:
        # Origin too is heeded where it comes: nothing is lost by looking at both.
        if name.lower() == "sec-websocket-origin":
            fields.append(("Origin", value))
        elif name.lower() != "sec-websocket-version":
            fields.append((name, value))
    modern = Request(
        request.method,
        request.target,
        Headers(fields),
        request.version,
        request.remote_address,
        request.secure,
    )
    return handshake.accept(modern, options.replace(compression=None))


def offer(made: Offer) -> Offer:
    """The offer of the draft for one of RFC 6455."""
    (number,) = (number for number, name in NUMBERS.items() if name == made.options.version)
    fields = []
    for name, value in made.request.headers:
        if name == "Sec-WebSocket-Version":
            fields.append((name, number))
        else:
            fields.append(("Sec-WebSocket-Origin" if name.lower() == "origin" else name, value))
    request = Request("GET", made.request.target, Headers(fields), secure=made.request.secure)
    return replace(made, request=request)
