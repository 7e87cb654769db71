"""Which protocol a connection speaks: that of RFC 6455, unless an old one is asked for by name.

A client of RFC 6455 never gets an old answer: it says ``Sec-WebSocket-Version: 13``, and
no old client does.
"""

from __future__ import annotations

from ..errors import UpgradeRequired
from ..http import Headers, Request, Response
from ..options import Options
from ..wire.hixie import PROVING, is_challenged
from . import handshake, hixie, hybi
from .handshake import Accepted, Offer

__all__ = ["accept", "confirm", "offer"]


def accept(request: Request, options: Options) -> Accepted:
    """Accept ``request`` in the protocol that it is of, if ``options`` have it.

    Raises a subclass of :exc:`RequestRefused`, which carries the answer.
    """
    if not options.legacy:
        return handshake.accept(request, options)
    version = _version_of(request.headers)
    if version == "13":
        return handshake.accept(request, options)
    if version not in options.spoken:
        raise UpgradeRequired(
            "the request is of no protocol that is spoken here",
            versions=["13", *(number for number, name in hybi.NUMBERS.items() if name in options.spoken)],
        )
    if version in hybi.NUMBERS.values():
        return hybi.accept(request, options)
    return hixie.accept(request, options, version)


def offer(host: str, port: int, secure: bool, target: str, headers: Headers, options: Options) -> Offer:
    """A request for a WebSocket of ``options.version``; see :func:`endwell.protocol.handshake.offer`."""
    made = handshake.offer(host, port, secure, target, headers, _plain(options))
    if options.version == "13":
        return made
    return hybi.offer(made) if options.version in hybi.NUMBERS.values() else hixie.offer(made)


def confirm(offer: Offer, response: Response) -> Accepted:
    """Check a 101 against the offer. Raises :exc:`InvalidHandshake`, which names the rule that is broken."""
    version = offer.options.version
    if version in PROVING or version == "hixie-75":
        return hixie.confirm(offer, response)
    return handshake.confirm(offer, response)


def _plain(options: Options) -> Options:
    # The extensions of the drafts are not those of today.
    return options if options.version == "13" else options.replace(compression=None)


def _version_of(headers: Headers) -> str:
    """The protocol that a request is of, or something that is none."""
    number = headers.get("Sec-WebSocket-Version")
    if number is not None:
        return hybi.NUMBERS.get(number, number)
    if is_challenged(headers):
        draft = headers.get("Sec-WebSocket-Draft")
        # 0 is what pywebsocket's client says: hybi-00 is hixie-76.
        return "hixie-76" if draft in (None, "0") else f"hybi-0{draft}"
    # hixie-75 has no field of its own, and no later protocol is without one.
    later = any(name.lower().startswith("sec-websocket-") for name, _ in headers)
    return "unknown" if later else "hixie-75"
