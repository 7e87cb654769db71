"""What a trusted proxy says about its client: X-Forwarded-For, -Proto and -Host, and Forwarded (RFC 7239)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from ..errors import BadRequest
from ..http import Headers, Request, forward
from ..matching import is_address_among
from ..wire.authority import parse_authority

__all__ = ["original_request"]

#: RFC 7239 §4: forwarded-pair = token "=" value. An address with a port is accepted without quotes, too.
_PAIR = re.compile(r'[ \t]*(?:([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^",;\s]*))?[ \t]*')
#: The scheme of the client, and whether it is secure.
_SCHEMES = {"http": False, "https": True, "ws": False, "wss": True}


@dataclass(slots=True)
class _Hop:
    """What one proxy says about the peer that it got the request from. An empty text says nothing."""

    address: str = ""
    scheme: str = ""
    host: str = ""
    #: Whether it hides the address of the peer, such as "unknown".
    hides: bool = False


def original_request(request: Request, trusted: Sequence[str]) -> Request:
    """The request as the client has sent it to the first proxy, if it comes from a proxy in ``trusted``.

    Otherwise ``request`` itself: anyone can send these fields. Each proxy appends to them, so they are read from
    the last to the first value, until an address that is not trusted: that is the client.

    Raises :exc:`BadRequest` if a trusted proxy says something that is malformed, or if the two kinds of fields
    contradict each other: then one of them comes from the client, and passed a proxy that does not know it.
    """
    peer = request.remote_address
    if not is_address_among(peer, trusted):
        return request
    found = [
        hop for hop in (_x_forwarded(request.headers, trusted), _forwarded(request.headers, trusted)) if hop
    ]
    if not found:
        return request
    hop = found[0]
    for other in found[1:]:
        _check_agreement(hop, other)
        if not hop.address:
            # X-Forwarded-Proto or -Host alone do not outweigh a Forwarded that names the client.
            hop = other if other.address else hop
    headers = request.headers
    if hop.host:
        try:
            parse_authority(hop.host)
        except ValueError:
            raise BadRequest("the host that the proxy forwards is malformed") from None
        headers = Headers([("Host", hop.host), *((n, v) for n, v in headers if n.lower() != "host")])
    secure = _SCHEMES[hop.scheme] if hop.scheme else request.secure
    return forward(request, _socket_address(hop.address) if hop.address else peer, secure, headers)


def _check_agreement(one: _Hop, other: _Hop) -> None:
    # A client that names an address in the other kind of fields would choose its own.
    contradictory = (one.hides and other.address) or (other.hides and one.address)
    for name in ("address", "scheme", "host"):
        first, second = getattr(one, name), getattr(other, name)
        if name == "address":
            first, second = _host_of(first), _host_of(second)
        contradictory = contradictory or (first and second and first.lower() != second.lower())
    if contradictory:
        raise BadRequest("Forwarded and X-Forwarded-* of the proxy contradict each other")


def _x_forwarded(headers: Headers, trusted: Sequence[str]) -> _Hop | None:
    addresses, schemes, hosts = (headers.list_of(f"X-Forwarded-{name}") for name in ("For", "Proto", "Host"))
    if not (addresses or schemes or hosts):
        return None
    index, address = _client(addresses, trusted)
    # Each proxy appends a value, or the first one sets the only value.
    scheme = schemes[-min(index, len(schemes))] if schemes else ""
    host = hosts[-min(index, len(hosts))] if hosts else ""
    return _Hop(address, _checked_scheme(scheme), host, bool(addresses) and not address)


def _forwarded(headers: Headers, trusted: Sequence[str]) -> _Hop | None:
    values = headers.get_all("Forwarded")
    if not values:
        return None
    hops = list(_hops(", ".join(values)))
    if not hops:
        return None
    index, address = _client([hop.address for hop in hops], trusted)
    hop = hops[-index]
    return _Hop(address, _checked_scheme(hop.scheme), hop.host, bool(hops[-1].address) and not address)


def _hops(text: str) -> Iterator[_Hop]:
    """The elements of Forwarded (RFC 7239 §4): one for each proxy, and in each at most one value of a name."""
    pairs: dict[str, str] = {}
    at = 0
    while at <= len(text):
        match = _PAIR.match(text, at)
        assert match is not None, "each part of the pattern is optional"
        name, value, separator = match[1], match[2], text[match.end() : match.end() + 1]
        if separator not in ("", ",", ";") or (name or "").lower() in pairs:
            raise BadRequest("Forwarded is malformed")
        if name:
            pairs[name.lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        if separator != ";" and pairs:
            yield _Hop(pairs.get("for", ""), pairs.get("proto", ""), pairs.get("host", ""))
            pairs = {}
        at = match.end() + 1


def _client(addresses: list[str], trusted: Sequence[str]) -> tuple[int, str]:
    """The client among ``addresses``, and its place, counted from the end.

    A proxy may hide its peer as ``unknown`` or ``_name`` (RFC 7239 §6). The client is unknown then, and so is
    everything before it: the result is the last proxy that is known.
    """
    index, known = 1, ""
    for index, text in enumerate(reversed(addresses), 1):
        host = _host_of(text)
        if not host:
            return index, known
        known = text
        if not is_address_among((host, 0), trusted):
            break
    return index, known


def _host_of(text: str) -> str:
    """The address without its port; ``""`` if it is none."""
    host = text
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    # A zone has a meaning only on the machine of the proxy.
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return ""
    return str(address)


def _socket_address(text: str) -> tuple[object, ...]:
    """The address in the format of the socket module; the port is 0 if the proxy does not say it."""
    host = _host_of(text)
    digits = text.rpartition(":")[2] if text.startswith("[") or text.count(":") == 1 else ""
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else 0
    port = port if port <= 65535 else 0
    return (host, port, 0, 0) if ":" in host else (host, port)


def _checked_scheme(scheme: str) -> str:
    if scheme and scheme.lower() not in _SCHEMES:
        raise BadRequest("the scheme that the proxy forwards is not http, https, ws or wss")
    return scheme.lower()
