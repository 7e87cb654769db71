"""The opening handshakes of hixie-75, hixie-76 and hybi-03. That of hybi-03 is the one of hixie-76."""

from __future__ import annotations

import hmac
import os
from dataclasses import replace
from random import SystemRandom

from ..errors import BadRequest, InvalidHandshake
from ..http import Headers, Request, Response, challenge_of, set_challenge
from ..options import Options
from ..wire.codec import Codec
from ..wire.hixie import CHALLENGE, PROVING, Hixie, proof
from ..wire.hybi import Hybi03
from ..wire.trace import TracedHixie, TracedHybi03, traces
from .handshake import Offer, check_switch, check_upgrade
from .negotiation import Accepted, check_origin, select_subprotocol

__all__ = ["accept", "confirm", "offer"]

#: hixie-76 §4.1, item 20: characters that are inserted into a key, "in the ranges U+0021 to U+002F and U+003A
#: to U+007E".
_INSERTED = [chr(code) for code in (*range(0x21, 0x30), *range(0x3A, 0x7F))]

#: Fields of an offer that are set here, or that have no meaning before RFC 6455.
_OFFERED = frozenset(
    (
        "connection",
        "host",
        "origin",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "upgrade",
    )
)

#: hixie-75 §3.1: a client compares the first bytes of the response with this text.
_OLD_LINE = b"HTTP/1.1 101 Web Socket Protocol Handshake"
_LINE = b"HTTP/1.1 101 WebSocket Protocol Handshake"

_random = SystemRandom()


class OldAccepted(Accepted):
    """A successful opening handshake of an old protocol version."""

    def __init__(self, response: Response, subprotocol: str | None, version: str) -> None:
        super().__init__(response, subprotocol, None)
        self.version = version

    @property
    def _protocol_field(self) -> str:  # type: ignore[override]
        return f"{_prefix(self.version)}Protocol"

    def serialize(self) -> bytes:
        """The 101 as bytes."""
        head = self.response.serialize()
        return (_LINE if self.version in PROVING else _OLD_LINE) + head[head.index(b"\r\n") :]

    def codec(self, client: bool, max_size: int | None) -> Codec:
        """See :meth:`Accepted.codec`."""
        if self.version.startswith("hybi-"):
            return (TracedHybi03 if traces() else Hybi03)(client, max_size)
        return (TracedHixie if traces() else Hixie)(client, max_size, self.version == "hixie-76")


def accept(request: Request, options: Options, version: str) -> Accepted:
    """Accept ``request`` (hixie-76 §5.2, hixie-75 §4.2). The result has the 101 to send.

    Raises a subclass of :exc:`RequestRefused`, which has the HTTP response.
    """
    check_upgrade(request)
    headers = request.headers
    prefix = _prefix(version)
    body = b""
    if version in PROVING:
        try:
            body = _proof(request)
        except ValueError:
            raise BadRequest(
                "Sec-WebSocket-Key1 and -Key2 must occur once, and contain a number each"
            ) from None
    check_origin(_comparable(request), options.origins)
    # The field has one name, not a list (hixie-76 §5.1).
    subprotocol = select_subprotocol(headers.get_all(f"{prefix}Protocol"), options.subprotocols)
    # The order of the fields is that of hixie-75 §4.2.
    answer = Headers({"Upgrade": "WebSocket", "Connection": "Upgrade"})
    origin = headers.get("Origin")
    if origin is not None:
        answer.add(f"{prefix}Origin", origin)
    # A client compares Location with its own URI, which is a wss URI if a proxy terminates TLS. A client that
    # forges X-Forwarded-Proto deceives only itself. Precedent: websocket-driver.
    secure = request.secure or headers.get("X-Forwarded-Proto") == "https"
    answer.add(f"{prefix}Location", _location(request, secure))
    if subprotocol is not None:
        answer.add(f"{prefix}Protocol", subprotocol)
    return OldAccepted(Response(101, answer, body), subprotocol, version)


def offer(made: Offer) -> Offer:
    """Translate an offer of RFC 6455 to an old version. Raises ValueError for more than one subprotocol."""
    request, options = made.request, made.options
    if len(options.subprotocols) > 1:
        raise ValueError(
            f"subprotocols must have at most one name in {options.version}, not {options.subprotocols!r}"
        )
    host = request.headers["Host"]
    fields = {"Upgrade": "WebSocket", "Connection": "Upgrade", "Host": host}
    # hixie-76 §4.1, item 12 requires an Origin. A client that is not a page sends the server's own origin.
    fields["Origin"] = request.headers.get("Origin") or f"{'https' if request.secure else 'http'}://{host}"
    for name in options.subprotocols:
        fields[f"{_prefix(options.version)}Protocol"] = name
    body = b""
    if options.version in PROVING:
        fields["Sec-WebSocket-Key1"], fields["Sec-WebSocket-Key2"] = _key(), _key()
        body = os.urandom(CHALLENGE)
    if options.version.startswith("hybi-"):
        fields["Sec-WebSocket-Draft"] = options.version.removeprefix("hybi-0")
    headers = Headers(fields)
    for name, value in request.headers:
        if name.lower() not in _OFFERED:
            headers.add(name, value)
    old = Request("GET", request.target, headers, secure=request.secure)
    set_challenge(old, body)
    return replace(made, request=old)


def confirm(offer: Offer, response: Response) -> Accepted:
    """Check a 101 against the offer (hixie-76 §4.1, hixie-75 §3.1).

    Raises :exc:`InvalidHandshake`, which names the broken rule.
    """
    request, headers, version = offer.request, response.headers, offer.options.version
    prefix = _prefix(version)
    check_switch(headers)
    for name, value in (
        ("Origin", request.headers["Origin"]),
        ("Location", _location(request, request.secure)),
    ):
        if headers.get_all(f"{prefix}{name}") != [value]:
            raise InvalidHandshake(f"the response must have one {prefix}{name} field, {value!r}")
    offered, chosen = request.headers.get(f"{prefix}Protocol"), headers.get(f"{prefix}Protocol")
    # hixie-76 §4.1, item 39 checks the field only "if there was a /protocol/ specified". eventlet sends
    # "default" to a client that offers none.
    if offered is None:
        chosen = None
    elif chosen not in (None, offered):
        raise InvalidHandshake(f"the response names a subprotocol that was not offered: {chosen[:80]!r}")
    if version in PROVING and not hmac.compare_digest(response.body, _proof(request)):
        raise InvalidHandshake(
            "the bytes after the response's head are not computed from this request's keys"
        )
    return OldAccepted(response, chosen, version)


def _prefix(version: str) -> str:
    return "WebSocket-" if version == "hixie-75" else "Sec-WebSocket-"


def _proof(request: Request) -> bytes:
    """The digest of a request. Raises ValueError unless each key occurs once and contains a number."""
    (key1,), (key2,) = (request.headers.get_all(f"Sec-WebSocket-Key{number}") for number in (1, 2))
    return proof(key1, key2, challenge_of(request))


def _location(request: Request, secure: bool) -> str:
    """The URI of the request, with the host in lower case (hixie-76 §3.2)."""
    return f"{'wss' if secure else 'ws'}://{request.headers['Host'].lower()}{request.target}"


def _comparable(request: Request) -> Request:
    """A request whose Origin has a scheme: websocket-client sends only a host and a port."""
    origins = request.headers.get_all("Origin")
    whole = [value if "://" in value or value == "null" else f"http://{value}" for value in origins]
    fields = [("Host", request.headers["Host"]), *(("Origin", value) for value in whole)]
    return Request("GET", request.target, Headers(fields), secure=request.secure)


def _key() -> str:
    """A key that hides a number of at most 32 bits (hixie-76 §4.1, items 16 to 21)."""
    spaces = _random.randint(1, 12)
    key = list(str(_random.randint(0, (2**32 - 1) // spaces) * spaces))
    for _ in range(_random.randint(1, 12)):
        key.insert(_random.randint(0, len(key)), _random.choice(_INSERTED))
    for _ in range(spaces):
        # "At random positions (...) other than the start or end of the string".
        key.insert(_random.randint(1, len(key) - 1), " ")
    return "".join(key)
