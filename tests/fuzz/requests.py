"""Fuzz targets for what a request says beside its WebSocket fields: its body, and the client behind a proxy."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from ipaddress import ip_address

from endwell.errors import RequestRefused
from endwell.http import Headers, Request
from endwell.options import Options
from endwell.protocol.forwarding import original_request
from endwell.wire.authority import parse_authority
from endwell.wire.body import BodyReader, body_length
from endwell.wire.head import RequestReader
from endwell.wire.preamble import PreambleReader
from tests.fuzz.pieces import reads, said

__all__ = ["body", "forwarded", "preamble"]

HAS_H11 = find_spec("h11") is not None

#: The limits of a body, and of a preamble of version 2 with its first 16 bytes.
LIMITS = (2**20, 400, 20, 0)
LONGEST_PREAMBLE = 16 + 4096
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def body(data: bytes, cuts: list[int]) -> object:
    """A request with a body: Content-Length, and the chunked coding."""
    limit = LIMITS[(data[0] if data else 0) & 3]
    head, pieces = RequestReader(Options(), ("192.0.2.1", 1)), iter(reads(data, 1, cuts))
    made = None
    try:
        while made is None and (piece := next(pieces, None)) is not None:
            made = head.receive(piece)
        if made is None:
            return "incomplete"
        length = body_length(made.method, made.version, made.headers)
        reader = BodyReader(length, limit)
        content = b""
        for piece in (head.take_rest(), *pieces):
            if not reader.complete:
                part = reader.receive(piece)
                assert len(part) <= len(piece)
                content += part
    except RequestRefused as error:
        return said(error)
    assert len(content) <= limit
    assert length is None or reader.complete is (len(content) == length)
    if HAS_H11 and not cuts:
        other = _body_by_h11(data[1:])
        assert other in (None, (content, reader.complete)), f"h11 reads {other}, not {content!r}"
    return made.method, length, content, reader.complete


def _body_by_h11(octets: bytes) -> tuple[bytes, bool] | None:
    """The body as h11 reads it, and whether that is complete; None if h11 refuses the request."""
    import h11

    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**16)
    connection.receive_data(octets)
    content = b""
    try:
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                content += event.data
            elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
                return content, True
    except h11.RemoteProtocolError:
        return None
    return content, False


def preamble(data: bytes, cuts: list[int]) -> object:
    """The preamble of the PROXY protocol, which is read as the server does: never more than may belong to it."""
    reader, unread, taken = PreambleReader(), b"", 0
    try:
        for piece in reads(data, 0, cuts):
            unread += piece
            while unread and not reader.complete:
                wanted = reader.wanted()
                assert 0 < wanted <= LONGEST_PREAMBLE + 2**16
                count = reader.receive(unread[:wanted])
                assert 0 < count <= wanted
                unread, taken = unread[count:], taken + count
    except ValueError as error:
        return said(error)
    assert unread == data[taken:]
    assert taken <= LONGEST_PREAMBLE
    address = reader.address
    assert reader.complete or (address is None and not unread)
    if isinstance(address, tuple):
        _check_address(address)
        for octets in _preambles_of(str(address[0]), int(address[1])):
            again, at = PreambleReader(), 0
            while not again.complete:
                at += again.receive(octets[at : at + again.wanted()])
            assert (again.address, at) == (address, len(octets))
    else:
        assert address in (None, "")
    return reader.complete, address, unread


def _check_address(address: object) -> None:
    """It is one that the socket module may give."""
    assert isinstance(address, tuple)
    host, port, *others = address
    assert str(ip_address(host)) == host
    assert 0 <= port <= 65535
    assert others == ([0, 0] if ":" in host else [])


def _preambles_of(host: str, port: int) -> Iterable[bytes]:
    """The preambles of both versions for a client."""
    address = ip_address(host)
    yield f"PROXY TCP{address.version} {host} {host} {port} 1\r\n".encode()
    block = address.packed * 2 + port.to_bytes(2, "big") + b"\0\1"
    family = b"\x11" if address.version == 4 else b"\x21"
    yield SIGNATURE + b"\x21" + family + len(block).to_bytes(2, "big") + block


#: The last proxy, and the networks of all proxies. ``PEER`` is in none of them.
PROXY, TRUSTED = ("10.0.0.1", 4000), ("10.0.0.0/8", "2001:db8:1::/48", "192.0.2.1")
PEERS = ("198.51.100.7", "[2001:db8:2::7]:443")


def forwarded(data: bytes, cuts: list[int]) -> object:
    """The fields of proxies: as they are, from a peer that is no proxy, and with what a proxy appends."""
    fields = []
    for line in data.decode("latin-1").split("\n"):
        name, colon, value = line.partition(":")
        try:
            fields += [*Headers({name: value.strip(" \t")})] if colon else []
        except ValueError:
            pass  # the parser of the head refuses it
    from_anyone = _request(fields, ("198.51.100.9", 1))
    assert original_request(from_anyone, TRUSTED) is from_anyone
    for peer in PEERS:
        for name, value in (("X-Forwarded-For", peer), ("Forwarded", f'proto=https;for="{peer}"')):
            for appended in (_appended(fields, name, value), [*fields, (name, value)]):
                # Each proxy appends its peer. The fields before that come from the peer, which may forge them.
                found = _original(appended)
                if isinstance(found, Request):
                    host = str(ip_address(peer.partition("]")[0].strip("[")))
                    assert isinstance(found.remote_address, tuple)
                    assert found.remote_address[0] == host, f"{found.remote_address} in {appended}"
    found = _original(fields)
    if isinstance(found, str):
        return found
    return found.remote_address, found.secure, list(found.headers)


def _appended(fields: list[tuple[str, str]], name: str, value: str) -> list[tuple[str, str]]:
    """``fields`` with ``value`` in one line with the values of the last field of that name."""
    for index in range(len(fields) - 1, -1, -1):
        if fields[index][0].lower() == name.lower():
            return [*fields[:index], (name, f"{fields[index][1]}, {value}"), *fields[index + 1 :]]
    return [*fields, (name, value)]


def _request(fields: list[tuple[str, str]], peer: object) -> Request:
    return Request("GET", "/", Headers([("Host", "localhost"), *fields]), remote_address=peer)


def _original(fields: list[tuple[str, str]]) -> Request | str:
    """The request that the last proxy passes on, as its client has sent it; or why it is refused."""
    request = _request(fields, PROXY)
    try:
        found = original_request(request, TRUSTED)
    except RequestRefused as error:
        return said(error)
    _check_address(found.remote_address)
    if found is not request and (host := found.headers["Host"]) != request.headers["Host"]:
        parse_authority(host)
    assert (found.method, found.target, found.version) == ("GET", "/", "1.1")
    return found
