"""Selects the protocol version of a connection: RFC 6455, or an old one that the options allow.

A client of RFC 6455 never gets the response of an old version: it sends ``Sec-WebSocket-Version: 13``, and no
old client does.
"""

from __future__ import annotations

from ..errors import UpgradeRequired
from ..http import Headers, Request, Response
from ..options import Options
from ..wire.hixie import PROVING, is_challenged
from . import handshake, hixie, hybi
from .handshake import Offer
from .negotiation import Accepted

__all__ = ["accept", "confirm", "offer"]


def accept(request: Request, options: Options) -> Accepted:
    """Accept ``request`` in its protocol version, if ``options`` allow that version.

    Raises a subclass of :exc:`RequestRefused`, which has the HTTP response.
    """
    if not options.legacy:
        return handshake.accept(request, options)
    version = _version_of(request.headers)
    if version == "13":
        return handshake.accept(request, options)
    if version not in options.spoken:
        raise UpgradeRequired(
            "this server does not support the WebSocket version of the request",
            versions=["13", *(number for number, name in hybi.NUMBERS.items() if name in options.spoken)],
        )
    if version in hybi.NUMBERS.values():
        return hybi.accept(request, options)
    return hixie.accept(request, options, version)


def offer(  # size: the parameters of the offer of RFC 6455
    host: str,
    port: int,
    secure: bool,
    target: str,
    headers: Headers,
    options: Options,
    bearer: bool = False,
) -> Offer:
    """The opening request of ``options.version``; see :func:`endwell.protocol.handshake.offer`."""
    bearer = bearer and options.version == "13"  # an old version has at most one subprotocol
    made = handshake.offer(host, port, secure, target, headers, _without_compression(options), bearer)
    if options.version == "13":
        return made
    return hybi.offer(made) if options.version in hybi.NUMBERS.values() else hixie.offer(made)


def confirm(offer: Offer, response: Response) -> Accepted:
    """Check a 101 against the offer. Raises :exc:`InvalidHandshake`, which names the broken rule."""
    version = offer.options.version
    if version in PROVING or version == "hixie-75":
        return hixie.confirm(offer, response)
    return handshake.confirm(offer, response)


def _without_compression(options: Options) -> Options:
    # permessage-deflate is defined for RFC 6455 only.
    return options if options.version == "13" else options.replace(compression=None)


def _version_of(headers: Headers) -> str:
    """The protocol version of a request; the result is not a known version if the request has none."""
    number = headers.get("Sec-WebSocket-Version")
    if number is not None:
        return hybi.NUMBERS.get(number, number)
    if is_challenged(headers):
        draft = headers.get("Sec-WebSocket-Draft")
        # pywebsocket's client sends 0: hybi-00 is hixie-76.
        return "hixie-76" if draft in (None, "0") else f"hybi-0{draft}"
    # hixie-75 has no Sec-WebSocket- field; every later version has one.
    later = any(name.lower().startswith("sec-websocket-") for name, _ in headers)
    return "unknown" if later else "hixie-75"
