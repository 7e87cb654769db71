"""The opening handshake of RFC 6455 §4 in both roles, without I/O."""

from __future__ import annotations

import hmac
import os
import sys
from binascii import b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha1

from ..build import __version__
from ..errors import BadRequest, Forbidden, InvalidHandshake, MethodNotAllowed, UpgradeRequired
from ..http.headers import TOKEN, Headers, headers_of_lines
from ..http.request import Request
from ..http.response import Response
from ..matching import Origins, is_origin_among, normal_origin
from ..options import Options
from ..wire import deflate
from ..wire.codec import Codec
from ..wire.deflate import PerMessageDeflate
from ..wire.extensions import parse_extensions
from ..wire.trace import TracedCodec, traces
from . import heartbeat

__all__ = [
    "Accepted",
    "Offer",
    "accept",
    "check_origin",
    "check_switch",
    "check_upgrade",
    "confirm",
    "offer",
    "select_subprotocol",
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


class Accepted:
    """A successful opening handshake, and the features that were negotiated."""

    __slots__ = ("deflate", "heartbeat", "response", "subprotocol")

    def __init__(
        self,
        response: Response,
        subprotocol: str | None,
        deflate: PerMessageDeflate | None,
        heartbeat: bool = False,
    ) -> None:
        self.response = response
        self.subprotocol = subprotocol
        self.deflate = deflate
        #: Whether the client is a page that has requested a heartbeat.
        self.heartbeat = heartbeat

    def serialize(self) -> bytes:
        """The 101 as bytes."""
        return self.response.serialize()

    def codec(self, client: bool, max_size: int | None) -> Codec:
        """The codec of the connection; ``client`` is the role of this side."""
        return (TracedCodec if traces() else Codec)(client, max_size, self.deflate)


@dataclass(frozen=True, slots=True)
class Offer:
    """A client's opening request, and the values that the response is checked against."""

    request: Request
    key: str
    options: Options


def wants_websocket(request: Request) -> bool:
    """Whether ``request`` asks for a WebSocket; else it is an ordinary HTTP request."""
    # RFC 9110 §7.8: "A server MUST ignore an Upgrade header field that is received
    # in an HTTP/1.0 request."
    return request.version != "1.0" and _has_token(request.headers, "Upgrade", "websocket")


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
    check_origin(request, options.origins)
    subprotocol = None
    if "Sec-WebSocket-Protocol" in headers:
        subprotocol = select_subprotocol(_offered_subprotocols(headers), options.subprotocols)
    try:
        extensions = parse_extensions(headers.get_all("Sec-WebSocket-Extensions"))
    except ValueError:
        raise BadRequest("Sec-WebSocket-Extensions is malformed") from None
    # RFC 6455 §4.2.2: an unknown extension is not an error; the response leaves it out.
    agreed = None
    if extensions and options.compression is not None:
        agreed = deflate.accept(extensions, options.compression)

    answer = headers_of_lines(SWITCHING + _accept_value(key))
    if subprotocol is not None:
        answer.add("Sec-WebSocket-Protocol", subprotocol)
    if agreed is not None:
        answer.add("Sec-WebSocket-Extensions", agreed[0])
    return Accepted(
        Response(101, answer), subprotocol, agreed[1] if agreed else None, heartbeat.asked_for(request)
    )


def select_subprotocol(offered: Iterable[str], supported: Iterable[str]) -> str | None:
    """The first of ``supported`` that is also in ``offered``; None if there is none.

    With None, the response has no Sec-WebSocket-Protocol (RFC 6455 §4.2.2), and the client may continue.
    """
    offered = frozenset(offered)
    for name in supported:
        if name in offered:
            return name
    return None


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


def check_origin(request: Request, allowed: Origins | None) -> None:
    """Refuse pages of other origins (RFC 6455 §10.2), which would act with the user's cookies."""
    origins = request.headers.get_all("Origin")
    if len(origins) > 1:
        raise BadRequest("Origin must not be repeated")
    if not origins:  # the client is not a browser page
        return
    if allowed is None:
        own = normal_origin(f"{'https' if request.secure else 'http'}://{request.headers.get('Host', '')}")
        is_allowed = normal_origin(origins[0]) == own
        detail = f"it is not {own[:200]!r}, the scheme and Host of the request"
    else:
        is_allowed = is_origin_among(origins[0], allowed)
        detail = "it is not in the option origins"
    if not is_allowed:
        raise Forbidden("pages of this origin may not connect here", detail=detail)


def _offered_subprotocols(headers: Headers) -> list[str]:
    """The subprotocols in the request: tokens (RFC 6455 §4.1, item 10).

    The RFC also forbids repeated ones. Every other server accepts them, and they do no harm.
    """
    names = headers.list_of("Sec-WebSocket-Protocol")
    if not names or not all(map(TOKEN.issuperset, names)):
        raise BadRequest("Sec-WebSocket-Protocol must be a list of tokens")
    return names


def _is_nonce(key: str) -> bool:
    """RFC 6455 §4.2.1, item 5: a base64-encoded value that, "when decoded, is 16 bytes in length".

    The unused bits of the last character may be nonzero, as in the example of §4.1. RFC 4648 §3.5 leaves that
    check to the decoder.
    """
    return len(key) == 24 and key.endswith("==") and BASE64.issuperset(key[:22])


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def offer(host: str, port: int, secure: bool, target: str, headers: Headers, options: Options) -> Offer:
    """The opening request of a client (RFC 6455 §4.1).

    ``host`` is in ASCII, an IPv6 address without brackets. ``target`` is path and query. ``headers`` are
    additional fields; Host and User-Agent replace the default. Raises ValueError for a field that the
    handshake sets itself, and for a value that does not fit into the request line or a field.
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
    if options.subprotocols:
        fields.add("Sec-WebSocket-Protocol", ", ".join(options.subprotocols))
    if options.compression is not None:
        fields.add("Sec-WebSocket-Extensions", deflate.offer(options.compression))
    if "User-Agent" not in headers:
        fields.add("User-Agent", USER_AGENT)
    for name, value in headers:
        if name.lower() != "host":
            fields.add(name, value)
    return Offer(Request("GET", target, fields, secure=secure), key, options)


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
    return Accepted(response, _confirm_subprotocol(offer, headers), _confirm_extensions(offer, headers))


def check_switch(headers: Headers) -> None:
    """Check items 2 and 3 of the server's response (RFC 6455 §4.1). Raises :exc:`InvalidHandshake`."""
    upgrade = _single(headers, "Upgrade")
    if upgrade is None or upgrade.lower() != "websocket":
        raise InvalidHandshake('the response must have one Upgrade field, "websocket"')
    if not _has_token(headers, "Connection", "upgrade"):
        raise InvalidHandshake('the response\'s Connection field must contain "Upgrade"')


def _confirm_subprotocol(offer: Offer, headers: Headers) -> str | None:
    """RFC 6455 §4.1, item 6; §11.3.4: the field "MUST NOT appear more than once" in an answer."""
    chosen = headers.get_all("Sec-WebSocket-Protocol")
    if not chosen:
        return None
    if len(chosen) > 1:
        raise InvalidHandshake("the response repeats Sec-WebSocket-Protocol")
    if chosen[0] not in offer.options.subprotocols:
        raise InvalidHandshake(f"the response names a subprotocol that was not offered: {chosen[0][:80]!r}")
    return chosen[0]


def _confirm_extensions(offer: Offer, headers: Headers) -> PerMessageDeflate | None:
    """RFC 6455 §4.1, item 5."""
    try:
        extensions = parse_extensions(headers.get_all("Sec-WebSocket-Extensions"))
    except ValueError as error:
        raise InvalidHandshake(str(error)) from None
    settings = offer.options.compression
    if settings is not None:
        return deflate.confirm(extensions, settings)
    if extensions:
        raise InvalidHandshake(
            f"the response names an extension, but none was offered: {extensions[0][0][:80]!r}"
        )
    return None


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
    if value is not None and value.lower() == token:
        return True  # the fast path: nearly all clients send exactly this
    return token in [element.lower() for element in headers.list_of(name)]
