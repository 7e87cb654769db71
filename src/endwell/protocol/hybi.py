"""The opening handshakes of hybi-07 and hybi-08, which differ from RFC 6455 in two fields.

Draft-ietf-hybi-thewebsocketprotocol-08 §5.1: the version is 8 (7 in -07), and the origin of a page is in
Sec-WebSocket-Origin. This module translates both fields.
"""

from __future__ import annotations

from dataclasses import replace

from ..http import Headers, Request
from ..options import Options
from . import handshake
from .handshake import Offer
from .negotiation import Accepted

__all__ = ["NUMBERS", "accept", "offer"]

#: Protocol names by the value of Sec-WebSocket-Version.
NUMBERS = {"8": "hybi-08", "7": "hybi-07"}


def accept(request: Request, options: Options) -> Accepted:
    """Accept ``request``, as :func:`endwell.protocol.handshake.accept` does, but without extensions."""
    fields = [("Sec-WebSocket-Version", "13")]
    for name, value in request.headers:
        # A field Origin is kept and checked as well.
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
    """Translate an offer of RFC 6455 to the draft."""
    (number,) = (number for number, name in NUMBERS.items() if name == made.options.version)
    fields = []
    for name, value in made.request.headers:
        if name == "Sec-WebSocket-Version":
            fields.append((name, number))
        else:
            fields.append(("Sec-WebSocket-Origin" if name.lower() == "origin" else name, value))
    request = Request("GET", made.request.target, Headers(fields), secure=made.request.secure)
    return replace(made, request=request)
