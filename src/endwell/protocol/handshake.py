"""The opening handshake of RFC 6455 §4 over HTTP/1.1 in both roles, without I/O."""

from __future__ import annotations

import hmac
import os
import sys
from binascii import b2a_base64
from dataclasses import dataclass
from hashlib import sha1

from ..build import __version__
from ..errors import BadRequest, InvalidHandshake, MethodNotAllowed, UpgradeRequired
from ..http.headers import Headers, headers_of_lines, is_plain
from ..http.request import Request
from ..http.response import Response
from ..options import Options
from .negotiation import Accepted, confirm_features, negotiate, offer_features

__all__ = [
    "Offer",
    "accept",
    "check_switch",
    "check_upgrade",
    "confirm",
    "offer",
    "wants_websocket",
]

#: RFC 6455 §1.3.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: RFC 4648 §4.
BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")

#: Fields that the handshake sets, and fields of a body, which the request does not have.
RESERVED = frozenset(
    (
        "connection",
        "content-length",
        "sec-websocket-accept",
        "sec-websocket-draft",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-key1",
        "sec-websocket-key2",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    )
)

#: The first fields of every 101.
SWITCHING = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "

USER_AGENT = f"Python/{sys.version_info.major}.{sys.version_info.minor} endwell/{__version__}"


@dataclass(frozen=True, slots=True)
class Offer:
    """A client's opening request, and the values that the response is checked against."""

    request: Request
    key: str
    options: Options
    #: Whether the request says that this client can send new bearer tokens.
    bearer: bool = False


def wants_websocket(request: Request) -> bool:
    """Whether ``request`` asks for a WebSocket; else it is an ordinary HTTP request."""
    # RFC 9110 §7.8: "A server MUST ignore an Upgrade header field that is received
    # in an HTTP/1.0 request."
    headers = request.headers
    return request.version != "1.0" and not is_plain(headers) and _has_token(headers, "Upgrade", "websocket")


def accept(request: Request, options: Options) -> Accepted:
    """Accept ``request`` (RFC 6455 §4.2). The result has the 101 to send.

    Raises a subclass of :exc:`RequestRefused`, which has the HTTP response.
    """
    check_upgrade(request)
    headers = request.headers
    # RFC 6455 §4.4: for any other version, the server responds with the version that it supports. A proxy
    # that ignores the status and tunnels all the same must not get a WebSocket here.
    if _single(headers, "Sec-WebSocket-Version") != "13":
        raise UpgradeRequired("Sec-WebSocket-Version must be 13")
    key = _single(headers, "Sec-WebSocket-Key")
    if key is None or not _is_nonce(key):
        raise BadRequest("Sec-WebSocket-Key must occur once, with the base64 of 16 bytes")
    return negotiate(request, options, Response(101, headers_of_lines(SWITCHING + _accept_value(key))))


def check_upgrade(request: Request) -> None:
    """Check items 1, 3 and 4 of RFC 6455 §4.2.1."""
    if request.method != "GET":
        raise MethodNotAllowed("a WebSocket is opened with GET")
    if request.version == "1.0":
        raise BadRequest("a WebSocket needs HTTP/1.1")
    if not wants_websocket(request):
        raise UpgradeRequired('this path serves a WebSocket: Upgrade must contain "websocket"')
    # Firefox sends "keep-alive, Upgrade".
    if not _has_token(request.headers, "Connection", "upgrade"):
        raise BadRequest('Connection must contain "Upgrade"')


def _is_nonce(key: str) -> bool:
    """RFC 6455 §4.2.1, item 5: a base64-encoded value that, "when decoded, is 16 bytes in length".

    The unused bits of the last character may be nonzero, as in the example of §4.1. RFC 4648 §3.5 leaves that
    check to the decoder.
    """
    return len(key) == 24 and key.endswith("==") and BASE64.issuperset(key[:22])


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def offer(  # size: the fields of the request
    host: str,
    port: int,
    secure: bool,
    target: str,
    headers: Headers,
    options: Options,
    bearer: bool = False,
) -> Offer:
    """The opening request of a client (RFC 6455 §4.1).

    ``host`` is in ASCII, an IPv6 address without brackets. ``target`` is path and query. ``headers`` are
    additional fields; Host and User-Agent replace the default. ``bearer``: see :class:`Offer`.

    Raises ValueError for a field that the handshake sets itself, and for a value that does not fit into the
    request line or a field.
    """
    if not (target.startswith("/") and target.isascii() and target.isprintable()) or {" ", "#"} & set(target):
        raise ValueError(f"target must be a path and query without spaces or a fragment, not {target!r}")
    for name, _ in headers:
        if name.lower() in RESERVED:
            raise ValueError(f"header {name} is set by the handshake")
    if len(headers.get_all("Host")) > 1:
        raise ValueError("header Host must not be repeated")
    # RFC 6455 §4.1, item 7: "a nonce consisting of a randomly selected 16-byte value
    # that has been base64-encoded".
    key = _base64(os.urandom(16))
    fields = Headers(
        {
            "Host": headers.get("Host") or _host(host, port, secure),
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
        }
    )
    offer_features(fields, options, bearer)
    if "User-Agent" not in headers:
        fields.add("User-Agent", USER_AGENT)
    for name, value in headers:
        if name.lower() != "host":
            fields.add(name, value)
    return Offer(Request("GET", target, fields, secure=secure), key, options, bearer)


def confirm(offer: Offer, response: Response) -> Accepted:
    """Check a 101 against the offer (RFC 6455 §4.1, items 2 to 6 of the server's response).

    Raises :exc:`InvalidHandshake`, which names the broken rule.
    """
    headers = response.headers
    check_switch(headers)
    proof = _single(headers, "Sec-WebSocket-Accept")
    # Encoded, because compare_digest() accepts only ASCII in a str.
    if proof is None or not hmac.compare_digest(proof.encode("latin-1"), _accept_value(offer.key).encode()):
        raise InvalidHandshake(
            "the response must have one Sec-WebSocket-Accept, computed from this request's key"
        )
    return confirm_features(offer.options, response, offer.bearer)


def check_switch(headers: Headers) -> None:
    """Check items 2 and 3 of the server's response (RFC 6455 §4.1). Raises :exc:`InvalidHandshake`."""
    upgrade = _single(headers, "Upgrade")
    if upgrade is None or upgrade.lower() != "websocket":
        raise InvalidHandshake('the response must have one Upgrade field, "websocket"')
    if not _has_token(headers, "Connection", "upgrade"):
        raise InvalidHandshake('the response\'s Connection field must contain "Upgrade"')


def _host(host: str, port: int, secure: bool) -> str:
    """RFC 6455 §4.1, item 4: the port "if not using the default port"."""
    if ":" in host:
        host = f"[{host}]"
    return host if port == (443 if secure else 80) else f"{host}:{port}"


def _accept_value(key: str) -> str:
    """RFC 6455 §4.2.2, item 5.4."""
    return _base64(sha1(key.encode() + GUID, usedforsecurity=False).digest())


def _single(headers: Headers, name: str) -> str | None:
    """The value of a field that occurs exactly once; else None."""
    values = headers.get_all(name)
    return values[0] if len(values) == 1 else None


def _has_token(headers: Headers, name: str, token: str) -> bool:
    value = headers.get(name)
    if value is None:
        return False  # the fast path of ordinary requests
    if value.lower() == token:
        return True  # the fast path: nearly all clients send exactly this
    return token in [element.lower() for element in headers.list_of(name)]
