"""What client and server agree on, without I/O: origin, subprotocol, extensions, heartbeat.

It is the same for every HTTP version. ``handshake.py`` has the part that belongs to HTTP/1.1.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import BadRequest, Forbidden, InvalidHandshake
from ..http.accept import Accept, check_fields
from ..http.bearer import FIELD, MARK
from ..http.headers import TOKEN, Headers
from ..http.request import Request, offers_bearer
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
    "check_origin",
    "confirm_features",
    "negotiate",
    "offer_features",
    "select_subprotocol",
]


class Accepted:
    """A successful opening handshake, and the features that were negotiated.

    ``response`` is the answer of the HTTP version that carried the request: in HTTP/1.1 the 101.
    """

    __slots__ = ("bearer", "deflate", "heartbeat", "response", "subprotocol")

    #: The field of the subprotocol, in the request and in the response.
    _protocol_field = "Sec-WebSocket-Protocol"

    def __init__(
        self,
        response: Response,
        subprotocol: str | None,
        deflate: PerMessageDeflate | None,
        heartbeat: bool = False,
        bearer: bool = False,
    ) -> None:
        self.response = response
        self.subprotocol = subprotocol
        self.deflate = deflate
        #: Whether the client is a page that has requested a heartbeat.
        self.heartbeat = heartbeat
        #: Whether the client has offered the subprotocol of bearer tokens, so that it can send new ones.
        self.bearer = bearer

    def add(self, request: Request, accept: Accept) -> bool:
        """Add what the application says to the response. Returns whether it says anything.

        Raises ValueError if the client does not offer the subprotocol, or for a field of the handshake.
        """
        # The application can change the headers after it has made the Accept.
        check_fields(accept.headers)
        answer, subprotocol = self.response.headers, accept.subprotocol
        if subprotocol is not None and subprotocol != self.subprotocol:
            name = self._protocol_field
            # RFC 6455 §4.2.2, item 5: the value "MUST be derived from the client's handshake".
            if subprotocol not in request.headers.list_of(name):
                raise ValueError(f"the client does not offer the subprotocol {subprotocol!r}")
            answer.set(name, subprotocol)
            self.subprotocol = subprotocol
        for field in accept.headers:
            answer.add(*field)
        return subprotocol is not None or len(accept.headers) > 0

    def serialize(self) -> bytes:
        """The response as bytes."""
        return self.response.serialize()

    def codec(self, client: bool, max_size: int | None) -> Codec:
        """The codec of the connection; ``client`` is the role of this side."""
        if not traces():
            return Codec(client, max_size, self.deflate)
        traced = TracedCodec(client, max_size, self.deflate)
        traced.discreet = self.bearer
        return traced


def negotiate(request: Request, options: Options, response: Response) -> Accepted:
    """Server: negotiate what ``request`` offers (RFC 6455 §4.2.2), and add the result to ``response``.

    Raises a subclass of :exc:`RequestRefused`, which has the HTTP response.
    """
    headers = request.headers
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
    answer, bearer = response.headers, offers_bearer(request)
    if subprotocol is not None:
        answer.add("Sec-WebSocket-Protocol", subprotocol)
    elif bearer:
        # Chromium fails a handshake whose answer selects none of the subprotocols that it has offered.
        answer.add(FIELD, MARK)
    if agreed is not None:
        answer.add("Sec-WebSocket-Extensions", agreed[0])
    settings = agreed[1] if agreed else None
    return Accepted(response, subprotocol, settings, heartbeat.asked_for(request), bearer)


def select_subprotocol(offered: Iterable[str], supported: Iterable[str]) -> str | None:
    """The first of ``supported`` that is also in ``offered``; None if there is none.

    With None, the response has no Sec-WebSocket-Protocol (RFC 6455 §4.2.2), and the client may continue.
    """
    offered = frozenset(offered)
    for name in supported:
        if name in offered:
            return name
    return None


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


def offer_features(fields: Headers, options: Options, bearer: bool = False) -> None:
    """Client: add to ``fields`` what the request offers (RFC 6455 §4.1, items 10 and 11).

    ``bearer``: this client can send new bearer tokens.
    """
    names = (*options.subprotocols, MARK) if bearer else options.subprotocols
    if names:
        fields.add(FIELD, ", ".join(names))
    if options.compression is not None:
        fields.add("Sec-WebSocket-Extensions", deflate.offer(options.compression))


def confirm_features(options: Options, response: Response, bearer: bool = False) -> Accepted:
    """Client: check what ``response`` has selected (RFC 6455 §4.1, items 5 and 6).

    Raises :exc:`InvalidHandshake`, which names the broken rule.
    """
    headers = response.headers
    subprotocol = _confirm_subprotocol(options, headers, bearer)
    return Accepted(response, subprotocol, _confirm_extensions(options, headers))


def _confirm_subprotocol(options: Options, headers: Headers, bearer: bool) -> str | None:
    """RFC 6455 §4.1, item 6; §11.3.4: the field "MUST NOT appear more than once" in an answer."""
    chosen = headers.get_all("Sec-WebSocket-Protocol")
    if not chosen:
        return None
    if len(chosen) > 1:
        raise InvalidHandshake("the response repeats Sec-WebSocket-Protocol")
    if bearer and chosen[0] == MARK:
        return None
    if chosen[0] not in options.subprotocols:
        raise InvalidHandshake(f"the response names a subprotocol that was not offered: {chosen[0][:80]!r}")
    return chosen[0]


def _confirm_extensions(options: Options, headers: Headers) -> PerMessageDeflate | None:
    """RFC 6455 §4.1, item 5."""
    try:
        extensions = parse_extensions(headers.get_all("Sec-WebSocket-Extensions"))
    except ValueError as error:
        raise InvalidHandshake(str(error)) from None
    settings = options.compression
    if settings is not None:
        return deflate.confirm(extensions, settings)
    if extensions:
        raise InvalidHandshake(
            f"the response names an extension, but none was offered: {extensions[0][0][:80]!r}"
        )
    return None
